"""The penalty on an answer's own tokens over a whole batch equals transformers' own, row by row, and needs no vLLM."""

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
from transformers import RepetitionPenaltyLogitsProcessor

PLUGIN = Path(__file__).resolve().parents[2] / "vllm_plugin"
VOCABULARY = 11
LONGEST = 40


@pytest.fixture
def repetition_penalty(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(PLUGIN))
    yield importlib.import_module("eyepiece_vllm.repetition_penalty")
    for name in [name for name in sys.modules if name.split(".")[0] == "eyepiece_vllm"]:
        del sys.modules[name]


def expected(logits: torch.Tensor, answer: list[int], penalty: float) -> torch.Tensor:
    """transformers' processor over the generated ids alone, as it sees them when it was given embeddings."""
    if not answer:
        return logits
    return RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([answer]), logits[None].clone())[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(20))
def test_random_batches_with_mixed_penalties_equal_transformers(
    repetition_penalty: ModuleType, seed: int, dtype: torch.dtype
) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    slots, batch = 9, rng.randint(1, 9)
    # Other requests' leavings, and ids beyond the vocabulary: a slide's placeholders.
    token_ids = torch.randint(0, VOCABULARY + 3, (slots, LONGEST), dtype=torch.int32)
    logits = torch.randn(batch, VOCABULARY).to(dtype)
    wanted = logits.clone()
    answers = []
    for row, slot in enumerate(rng.sample(range(slots), batch)):
        penalty, start = rng.choice([1.0, 1.15, 1.2, 2.0, 0.8]), rng.randint(0, 12)
        # Some are still in their prompt: they end before they start.
        length = rng.choice([0, -3, rng.randint(1, LONGEST - start)])
        answer = [rng.randrange(VOCABULARY) for _ in range(length)]
        token_ids[slot, start : start + len(answer)] = torch.tensor(answer, dtype=torch.int32)
        wanted[row] = expected(logits[row], answer, penalty)
        answers.append(repetition_penalty.PenaltyRow(row, slot, start, start + length, penalty))
    before = token_ids.clone()

    repetition_penalty.penalise_said_tokens(logits, token_ids, rng.sample(answers, batch))

    assert torch.equal(logits, wanted)
    assert torch.equal(token_ids, before)


class Counted(TorchDispatchMode):
    """Counts operations."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_grow_with_the_rows(repetition_penalty: ModuleType) -> None:
    def operations(rows: int) -> int:
        logits, token_ids = torch.ones(rows, VOCABULARY), torch.zeros(rows, LONGEST, dtype=torch.int32)
        answers = [repetition_penalty.PenaltyRow(row, row, 5, 30, 1.15) for row in range(rows)]
        with Counted() as counted:
            repetition_penalty.penalise_said_tokens(logits, token_ids, answers)
        return counted.operations

    assert 0 < operations(2) == operations(64)


def test_it_needs_torch_and_no_vllm(repetition_penalty: ModuleType) -> None:
    tree = ast.parse(Path(str(repetition_penalty.__file__)).read_text())
    imported = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}

    assert imported == {"collections.abc", "typing", "torch"}
