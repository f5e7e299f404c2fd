"""Batches of the stage of honest answers: ordinary conversations and honest ones by turns, about slides and regions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_preference import packaged_tokenizer

from synthetic.questions.unanswerable import REFUSAL
from synthetic.slide_truth import slide_truth
from training.demo_recipe import DEMO
from training.language_model.conversation_task import HonestTask, TokenizedSlides

TOKENS, WIDTH = 4, 8


def shown(seeds: range, value: float, *, necrosis: bool | None = None) -> TokenizedSlides:
    truths = [slide_truth(seed) for seed in seeds]
    if necrosis is not None:
        truths = [replace(truth, necrosis="upper left" if necrosis else None) for truth in truths]
    return TokenizedSlides(torch.full((len(truths), TOKENS, WIDTH), value, dtype=torch.float16), tuple(truths))


def task(regions: TokenizedSlides, *, region_share: float) -> HonestTask:
    mix = replace(DEMO.honest_mix(DEMO.honest), step_tokens=4_000, most_turns=3)
    return HonestTask(mix, packaged_tokenizer(), shown(range(20), 1.0), regions, region_share=region_share, noise=0.0)


def texts(batch: dict[str, torch.Tensor]) -> list[str]:
    return [packaged_tokenizer().decode(row.tolist()) for row in batch["ids"]]


def test_every_other_conversation_is_ordinary_and_the_others_refuse_far_more() -> None:
    made = task(shown(range(0), 2.0), region_share=0.0)
    batches = [dict(made.batch(step, 0, 1)) for step in range(8)]

    refused = [[REFUSAL in text for text in texts(batch)] for batch in batches]
    assert sum(sum(rows[1::2]) for rows in refused) > 20
    assert sum(sum(rows[1::2]) for rows in refused) > 4 * sum(sum(rows[::2]) for rows in refused)
    assert all(torch.all(batch["slide_tokens"] == 1.0) for batch in batches)


def test_regions_with_necrosis_and_without_are_asked_about_equally_often() -> None:
    having, others = shown(range(9), 3.0, necrosis=True), shown(range(9, 10), 2.0, necrosis=False)
    regions = TokenizedSlides(torch.cat([having.tokens, others.tokens]), having.truths + others.truths)
    made = task(regions, region_share=1.0)

    values = np.concatenate([dict(made.batch(step, 0, 1))["slide_tokens"][:, 0, 0].numpy() for step in range(20)])

    counts = {value: int((values == value).sum()) for value in (1.0, 2.0, 3.0)}
    assert abs(counts[2.0] - counts[3.0]) < 0.35 * (counts[2.0] + counts[3.0])
    assert counts[1.0] >= counts[2.0] + counts[3.0]


def test_a_batch_is_the_same_each_time_and_another_in_every_step() -> None:
    made = task(shown(range(5), 2.0), region_share=0.3)

    first, again, other = (dict(made.batch(step, 0, 1)) for step in (3, 3, 4))

    assert torch.equal(first["ids"], again["ids"])
    assert torch.equal(first["slide_tokens"], again["slide_tokens"])
    assert first["ids"].shape != other["ids"].shape or not torch.equal(first["ids"], other["ids"])
    assert first["weights"].max() == pytest.approx(4.0)


def test_processes_share_a_step_and_none_has_anothers_part() -> None:
    made = task(shown(range(5), 2.0), region_share=0.3)

    alone, *shares = (dict(made.batch(3, rank, ranks)) for rank, ranks in ((0, 1), (0, 2), (1, 2)))

    assert all(0 < len(share["ids"]) <= len(alone["ids"]) for share in shares)
    assert texts(shares[0]) != texts(shares[1])
