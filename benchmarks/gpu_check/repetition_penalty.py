"""The plugin's penalty on an answer's own tokens for a whole batch on the device, against transformers' on the CPU.

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

# Qwen2.5's vocabulary, and the penalties of MLLM-HWSI's scripts; 1.0 changes nothing.
_VOCABULARY: Final = 152_064
_PENALTIES: Final = (1.15, 1.2, 1.0)
_ROWS, _SMALL_ROWS = 256, 6
_PROMPT, _LENGTH, _SMALL_LENGTH = 7, 576, 64


def check(setting: Setting) -> Finding:
    """Rows of different lengths, in another order than their slots."""
    rows, length = (_SMALL_ROWS, _SMALL_LENGTH) if setting.small else (_ROWS, _LENGTH)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, _VOCABULARY, (rows, length), generator=generator, dtype=torch.int32)
    ends = torch.randint(_PROMPT + 1, length + 1, (rows,), generator=generator).tolist()
    logits = torch.randn(rows, _VOCABULARY, generator=generator)
    module = plugin_module("repetition_penalty")
    answers = [
        module.PenaltyRow(row, rows - 1 - row, _PROMPT, ends[row], _PENALTIES[row % len(_PENALTIES)])
        for row in range(rows)
    ]
    expected = torch.stack([_by_transformers(logits[answer.row], tokens, answer) for answer in answers])
    changed = int((expected != logits).sum())

    on_device, tokens = logits.to(setting.device), tokens.to(setting.device)
    module.penalise_said_tokens(on_device, tokens, answers)
    different = int((on_device.cpu() != expected).sum())
    seconds = seconds_per_call(lambda: module.penalise_said_tokens(on_device, tokens, answers), setting)
    return Finding(
        numbers=(
            Number(name="logits that differ", value=different, at_most=0, source="exact"),
            Number(name="logits changed", value=changed, at_least=1, source="else nothing was compared"),
            Number(name=f"a step of {rows} answers", value=seconds * 1e6, unit="µs"),
        )
    )


def _by_transformers(logits: Tensor, tokens: Tensor, answer: Any) -> Tensor:
    from transformers import RepetitionPenaltyLogitsProcessor

    said = tokens[answer.slot, answer.start : answer.end].long()
    penalised: Tensor = RepetitionPenaltyLogitsProcessor(answer.penalty)(said[None], logits[None].clone())[0]
    return penalised
