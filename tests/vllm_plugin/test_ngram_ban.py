"""The ban of repeated n-grams over a whole batch equals transformers' own, row by row, and needs no vLLM."""

import ast
import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import NoRepeatNGramLogitsProcessor

PLUGIN = Path(__file__).resolve().parents[2] / "vllm_plugin"
VOCABULARY = 7  # small, so that n-grams repeat
LONGEST = 40


@pytest.fixture
def ngram_ban(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(PLUGIN))
    yield importlib.import_module("eyepiece_vllm.ngram_ban")
    for name in [name for name in sys.modules if name.split(".")[0] == "eyepiece_vllm"]:
        del sys.modules[name]


def expected(logits: torch.Tensor, answer: list[int], size: int) -> torch.Tensor:
    """transformers' processor over the generated ids alone, as it sees them when it was given embeddings."""
    if not size or not answer:
        return logits
    return NoRepeatNGramLogitsProcessor(size)(torch.tensor([answer]), logits[None])[0]


@pytest.mark.parametrize("seed", range(40))
def test_random_batches_with_mixed_sizes_equal_transformers(ngram_ban: ModuleType, seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    slots, batch = 9, rng.randint(1, 9)
    # Other requests' leavings, and ids beyond the vocabulary: a slide's placeholders.
    token_ids = torch.randint(0, VOCABULARY + 3, (slots, LONGEST), dtype=torch.int32)
    logits = torch.randn(batch, VOCABULARY)
    wanted = logits.clone()
    answers = []
    for row, slot in enumerate(rng.sample(range(slots), batch)):
        size, start = rng.choice([0, 1, 2, 2, 3, 4, 9]), rng.randint(0, 12)
        answer = [rng.randrange(VOCABULARY) for _ in range(rng.randint(0, LONGEST - start))]
        token_ids[slot, start : start + len(answer)] = torch.tensor(answer, dtype=torch.int32)
        wanted[row] = expected(logits[row], answer, size)
        answers.append(ngram_ban.AnswerRow(row, slot, start, start + len(answer), size))
    before = token_ids.clone()

    ngram_ban.ban_repeated_ngrams(logits, token_ids, rng.sample(answers, batch))

    assert torch.equal(logits, wanted)
    assert torch.equal(token_ids, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_of_logits(ngram_ban: ModuleType, dtype: torch.dtype) -> None:
    logits = torch.zeros(2, VOCABULARY, dtype=dtype)
    token_ids = torch.tensor([[VOCABULARY, 1, 2, 1, 2, 1]])

    ngram_ban.ban_repeated_ngrams(logits, token_ids, [ngram_ban.AnswerRow(1, 0, 1, 6, 2)])

    assert torch.equal(logits[0], torch.zeros(VOCABULARY, dtype=dtype))
    assert torch.isneginf(logits[1]).nonzero().flatten().tolist() == [2]


class Counted(TorchDispatchMode):
    """Counts operations."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_grow_with_the_rows(ngram_ban: ModuleType) -> None:
    def operations(rows: int) -> int:
        logits, token_ids = torch.zeros(rows, VOCABULARY), torch.zeros(rows, LONGEST, dtype=torch.int32)
        answers = [ngram_ban.AnswerRow(row, row, 5, 30, 3) for row in range(rows)]
        with Counted() as counted:
            ngram_ban.ban_repeated_ngrams(logits, token_ids, answers)
        return counted.operations

    assert 0 < operations(2) == operations(64)


def test_it_needs_torch_and_no_vllm(ngram_ban: ModuleType) -> None:
    tree = ast.parse(Path(str(ngram_ban.__file__)).read_text())
    imported = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}

    assert imported == {"collections.abc", "typing", "torch"}
