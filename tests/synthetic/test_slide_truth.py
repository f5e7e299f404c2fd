"""The truth of a slide: the same for its seed, consistent in itself, and some of it kept from training."""

from synthetic.slide_truth import EXTENT_RANGES, FIRST_TRAINING_SEED, GRADED, is_held_out, slide_truth

PUBLIC = [slide_truth(seed) for seed in range(1_000)]


def test_a_seed_has_one_truth() -> None:
    assert [slide_truth(seed) for seed in range(1_000)] == PUBLIC


def test_attributes_do_not_contradict_each_other() -> None:
    for truth in PUBLIC:
        low, high = EXTENT_RANGES[truth.extent]
        assert low <= truth.tumour_fraction <= high
        assert (truth.grade is not None) == (truth.pattern in GRADED)
        if truth.pattern == "benign":
            assert (truth.extent, truth.mitoses, truth.necrosis) == ("none", "rare", None)


def test_training_never_sees_a_held_out_combination_and_others_do() -> None:
    trained = [slide_truth(FIRST_TRAINING_SEED + seed) for seed in range(2_000)]
    assert not any(is_held_out(truth) for truth in trained)
    assert 0.05 < sum(is_held_out(truth) for truth in PUBLIC) / len(PUBLIC) < 0.15
    for attribute in ("pattern", "grade", "mitoses", "lymphocytes", "stroma", "extent", "necrosis"):
        seen = {getattr(truth, attribute) for truth in trained}
        assert seen == {getattr(truth, attribute) for truth in PUBLIC}, "every value is trained on"
