"""The examination of evidence: what is planned, and what counts as right."""

from dataclasses import replace

from evaluation.evidence import FIRST_SEED, SeenEvidence, plan, score
from evaluation.quadrants import quadrants_of
from synthetic.slide_truth import slide_truth


def test_slides_with_and_without_necrosis_are_planned_and_looked_at_in_other_forms() -> None:
    planned = plan(8, FIRST_SEED)
    kinds = [kind for kind, _ in planned]

    assert [kinds.count(kind) for kind in ("necrosis", "none", "shuffled", "finer", "restained")] == [8, 8, 8, 2, 2]
    assert len({specimen for _, specimen in planned}) == len(planned)
    assert all((slide_truth(it.seed).necrosis is None) == (kind == "none") for kind, it in planned)


def test_a_cell_counts_where_it_lies_in_the_true_quadrant_and_silence_where_there_is_nothing_to_see() -> None:
    seed = next(it.seed for kind, it in plan(1, FIRST_SEED) if kind == "necrosis")
    box = next(it.box for it in quadrants_of(seed) if it.has_necrosis)
    inside = SeenEvidence("necrosis", seed, "There.", (box[0] + box[2] / 2, box[1] + box[3] / 2), 9, 1.0, True)
    beside = replace(inside, strongest=(box[0] - 10, box[1] - 10))
    silent = replace(inside, strongest=None)

    assert [it.is_right for it in (inside, beside, silent)] == [True, False, False]
    assert [replace(it, kind="none").is_right for it in (inside, silent)] == [False, True]
    scores = score([inside, replace(silent, kind="none"), replace(silent, kind="shuffled", is_familiar=False)])
    assert scores.is_reached
    assert not score([beside, replace(silent, kind="none"), replace(silent, kind="shuffled")]).is_reached
    assert scores.familiar.asked == 2, "a slide whose tiles changed places is none that the model knows"
