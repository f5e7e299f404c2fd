"""The plugin's ban of repeated n-grams for a whole batch on the device, against transformers' row by row on the CPU.

Between two tokens of every answer: what it takes is shown.
"""

from typing import Any, Final

import torch
from torch import Tensor

import encoders.tile_encoder.torchvision_ops  # noqa: F401 - transformers imports torchvision
from benchmarks.gpu_check.plugin import plugin_module
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from benchmarks.gpu_check.timing import seconds_per_call

# The published model's vocabulary and sizes of n-grams that its evaluation scripts use; 0 bans nothing.
_VOCABULARY: Final = 32_000
_SIZES: Final = (3, 5, 0)
_ROWS, _SMALL_ROWS = 256, 6
_PROMPT, _LENGTH, _SMALL_LENGTH = 7, 2048, 64
# So few different tokens that n-grams do repeat.
_TOKENS: Final = 5


def check(setting: Setting) -> Finding:
    """Rows of different lengths, in another order than their slots."""
    rows, length = (_SMALL_ROWS, _SMALL_LENGTH) if setting.small else (_ROWS, _LENGTH)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, _TOKENS, (rows, length), generator=generator, dtype=torch.int32)
    ends = torch.randint(_PROMPT + 1, length + 1, (rows,), generator=generator).tolist()
    logits = torch.randn(rows, _VOCABULARY, generator=generator)
    module = plugin_module("ngram_ban")
    answers = [
        module.AnswerRow(row, rows - 1 - row, _PROMPT, ends[row], _SIZES[row % len(_SIZES)]) for row in range(rows)
    ]
    expected = torch.stack([_by_transformers(logits[answer.row], tokens, answer) for answer in answers])
    banned = int(torch.isneginf(expected).sum())

    on_device, tokens = logits.to(setting.device), tokens.to(setting.device)
    module.ban_repeated_ngrams(on_device, tokens, answers)
    different = int((on_device.cpu() != expected).sum())
    seconds = seconds_per_call(lambda: module.ban_repeated_ngrams(on_device, tokens, answers), setting)
    return Finding(
        numbers=(
            Number(name="logits that differ", value=different, at_most=0, source="exact"),
            Number(name="tokens banned", value=banned, at_least=1, source="else nothing was compared"),
            Number(name=f"a step of {rows} answers", value=seconds * 1e6, unit="µs"),
        )
    )


def _by_transformers(logits: Tensor, tokens: Tensor, answer: Any) -> Tensor:
    from transformers import NoRepeatNGramLogitsProcessor

    if not answer.size:
        return logits
    said = tokens[answer.slot, answer.start : answer.end].long()
    banned: Tensor = NoRepeatNGramLogitsProcessor(answer.size)(said[None], logits[None].clone())[0]
    return banned
