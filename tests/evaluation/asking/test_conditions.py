"""What is asked under which condition: another patient's slide is never one's own, and words are not what is right."""

from small_set import item, open_item, questions

from evaluation.asking.conditions import (
    AS_IS,
    BLANK,
    CONDITIONS,
    NO_SLIDE,
    PARAPHRASED,
    WRONG,
    WRONG_SAME,
    Shown,
    plan_asks,
    shown_slides,
)


def test_a_plan_is_the_same_every_time() -> None:
    assert plan_asks(questions(), CONDITIONS, seed=3) == plan_asks(questions(), CONDITIONS, seed=3)


def test_every_ask_has_a_key_of_its_own() -> None:
    asks = plan_asks(questions(), CONDITIONS).asks

    assert len({ask.key for ask in asks}) == len(asks) == 6 * len(CONDITIONS)


def test_a_wrong_slide_is_of_another_patient() -> None:
    items = [item(0), item(1, patient="p0"), item(2), item(3, project="P1")]
    asks = plan_asks(questions(*items), [WRONG, WRONG_SAME]).asks
    patients = {i.slide: i.patient for i in items}
    projects = {i.slide: i.project for i in items}

    assert all(patients[ask.shown.slide] != ask.item.patient for ask in asks)
    assert all(projects[ask.shown.slide] == ask.item.project for ask in asks if ask.condition == WRONG_SAME)


def test_a_patient_alone_in_a_project_is_named() -> None:
    plan = plan_asks(questions(item(0, project="alone"), item(2), item(3)), [WRONG_SAME])

    assert plan.without_partner == {WRONG_SAME: ("q0",)}
    assert [ask.item.key for ask in plan.asks] == ["q2", "q3"]


def test_slides_without_a_project_are_no_project() -> None:
    plan = plan_asks(questions(item(0, project=""), item(2, project="")), [WRONG_SAME])

    assert plan.asks == ()


def test_what_is_shown() -> None:
    shown = {ask.condition: ask.shown for ask in plan_asks(questions(item(4), item(2)), [AS_IS, NO_SLIDE, BLANK]).asks}

    assert shown == {AS_IS: Shown("slide", "s2"), NO_SLIDE: Shown("none"), BLANK: Shown("blank", "s4")}


def test_a_blank_slide_is_prepared_behind_the_one_that_it_is_made_of() -> None:
    asks = plan_asks(questions(item(1)), [BLANK]).asks

    assert list(shown_slides(asks)) == [Shown("slide", "s1"), Shown("blank", "s1")]


def test_paraphrased_options_stand_elsewhere_and_the_right_one_is_followed() -> None:
    for ask in plan_asks(questions(), [PARAPHRASED]).asks:
        before, after = ask.item.options["ABC".index(ask.item.truth)], ask.options["ABC".index(ask.wanted)]

        assert before == after
        assert ask.wanted != ask.item.truth
        assert f"{ask.wanted}) {after}" in ask.question


def test_a_wording_of_ones_own_is_taken() -> None:
    set_of_two = questions(item(0), open_item(1, "A thing."))

    closed, free = plan_asks(set_of_two, [PARAPHRASED], 0, {"q0": "Name the grade.", "q1": "Tell me."}).asks

    assert closed.question.startswith("Name the grade.\nA) ")
    assert free.question == "Tell me."
