"""The plan of an examination."""

import pytest

from evaluation.exam import (
    ANOTHER_SLIDE,
    AS_IS,
    BLIND,
    FINER,
    FOLLOW_UP,
    PLACE,
    RESTAINED,
    SHORT_SIZE,
    SHUFFLED,
    UNSEEN_WORDINGS,
    Dialogue,
    Specimen,
    full_size,
    place_questions,
    plan_exam,
    specimens_of,
)
from synthetic.questions.slide_questions import slide_questions
from synthetic.questions.topics import NECROSIS
from synthetic.questions.wordings import UNSEEN
from synthetic.slide_truth import FIRST_TRAINING_SEED, slide_truth

SIZE = full_size(6)
PLAN = plan_exam(SIZE, first_seed=500)


def of(condition: str) -> list[Dialogue]:
    return [dialogue for dialogue in PLAN if dialogue.condition == condition]


def test_every_question_of_a_slide_is_asked_as_is_and_in_unseen_words() -> None:
    for seed in range(500, 506):
        truth = slide_truth(seed)
        mine = [dialogue for dialogue in PLAN if dialogue.specimen == Specimen(seed)]
        assert [d.questions for d in mine if d.condition == AS_IS] == [(q,) for q in slide_questions(truth)]
        unseen = [d.questions for d in mine if d.condition == UNSEEN_WORDINGS]
        assert unseen == [(q,) for q in slide_questions(truth, UNSEEN)]


def test_follow_ups_are_the_same_questions_in_conversations_about_mixed_topics() -> None:
    asked = [question for dialogue in of(FOLLOW_UP) for question in dialogue.questions]

    assert sorted(q.text for q in asked) == sorted(d.questions[0].text for d in of(AS_IS))
    assert {len(dialogue.questions) for dialogue in of(FOLLOW_UP)} == {4}
    assert {dialogue.first_scored for dialogue in of(FOLLOW_UP)} == {2}
    assert min(len({question.topic for question in dialogue.questions}) for dialogue in of(FOLLOW_UP)) >= 2


def test_another_slide_is_never_the_slide_itself_and_each_is_shown_once() -> None:
    pairs = {dialogue.truth.seed: dialogue.specimen.seed for dialogue in of(ANOTHER_SLIDE)}

    assert sorted(pairs) == sorted(pairs.values()) == list(range(500, 506))
    assert all(truth != shown for truth, shown in pairs.items())


def test_shuffled_slides_are_asked_what_they_were_asked_before_and_more() -> None:
    necrotic = [seed for seed in range(500, 506) if slide_truth(seed).necrosis]
    assert len(necrotic) >= 2

    for seed in necrotic:
        before = [d.questions[0] for d in of(PLACE) if d.truth.seed == seed]
        after = [d.questions[0] for d in of(SHUFFLED) if d.truth.seed == seed]
        assert before == place_questions(slide_truth(seed)) == after[: len(before)]
        assert {question.topic for question in before} == {NECROSIS.name}
        assert {question.form for question in before} == {"letter", "yes_no", "free"}
    assert {d.specimen for d in of(SHUFFLED)} == {Specimen(seed, "shuffled") for seed in necrotic}


def test_the_blind_see_one_blank_slide_and_hear_the_same_questions() -> None:
    assert {dialogue.specimen for dialogue in of(BLIND)} == {Specimen(500, "blank")}
    assert [d.questions for d in of(BLIND)] == [d.questions for d in of(AS_IS)]


def test_other_scanners_and_laboratories_show_the_same_tissue() -> None:
    for condition, variant in ((FINER, "finer"), (RESTAINED, "restained")):
        assert {dialogue.specimen.variant for dialogue in of(condition)} == {variant}
        assert [d.questions for d in of(condition)] == [d.questions for d in of(AS_IS)]


def test_specimens_come_once_and_made_ones_after_all_they_are_made_of() -> None:
    specimens = specimens_of(PLAN)

    assert len(set(specimens)) == len(specimens)
    for place, specimen in enumerate(specimens):
        if specimen.variant in ("shuffled", "blank"):
            assert Specimen(specimen.seed) in specimens[:place]


def test_no_training_seed_is_ever_examined() -> None:
    with pytest.raises(ValueError, match="for training"):
        plan_exam(SIZE, first_seed=FIRST_TRAINING_SEED - 5)


def test_the_short_examination_is_a_small_part_of_the_full_one() -> None:
    short, full = plan_exam(SHORT_SIZE), plan_exam(full_size(60))

    assert len(specimens_of(short)) < len(specimens_of(full)) / 3
    assert {dialogue.condition for dialogue in short} == {dialogue.condition for dialogue in full}
