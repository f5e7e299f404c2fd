"""Pairs that teach honesty: the preferred answer is true, and the examination's words are not among training's."""

from dataclasses import replace

import numpy as np
import pytest

from synthetic.questions.findings import FINDINGS, NECROSIS_SEEN, TUMOUR
from synthetic.questions.honesty import honest_conversation, honest_pair, region_conversation, region_pair
from synthetic.questions.other_languages import LANGUAGES, UNSEEN_LANGUAGES, foreign_text
from synthetic.questions.out_of_scope import out_of_scope_text
from synthetic.questions.pressure import doubt
from synthetic.questions.question import SUMMARIES, report, sentences
from synthetic.questions.topics import ATTRIBUTES, TOPICS
from synthetic.questions.typing_manner import examined_manners, typed
from synthetic.questions.unanswerable import (
    ENGLISH_ONLY,
    GREETING,
    GREETINGS,
    REFUSAL,
    UNANSWERABLE,
    UNSEEN_TOPICS,
)
from synthetic.slide_truth import slide_truth


def test_a_negated_question_gets_the_opposite_answer() -> None:
    for seed in range(30):
        truth = slide_truth(seed)
        for finding in FINDINGS:
            if finding.holds is None:
                continue
            asked = finding.question(truth, finding.seen[0]).answer
            denied = finding.question(truth, finding.negated_seen[0], negated=True).answer
            assert {asked, denied} == {"Yes", "No"}
            assert (asked == "Yes") is finding.holds(truth)


def test_a_tumour_is_there_unless_the_tissue_is_benign() -> None:
    truths = [slide_truth(seed) for seed in range(40)]

    assert all(TUMOUR.question(truth, "?").answer == ("No" if truth.pattern == "benign" else "Yes") for truth in truths)


def test_every_kind_of_pair_comes_with_a_true_answer_preferred() -> None:
    rng = np.random.default_rng(0)
    answers = {topic.name: topic for topic in TOPICS}
    met: set[str] = set()
    for seed in range(400):
        truth = slide_truth(seed)
        pair = honest_pair(truth, "seen", rng, 7)
        met.add(pair.question.topic.split(":")[0])
        assert len(pair.earlier) <= 7
        if pair.question.form == "free" and pair.question.topic in answers:
            assert pair.question.answer == answers[pair.question.topic].answer(truth)
        elif pair.question.topic == "never drawn":
            assert pair.question.answer == "No" or pair.question.answer.endswith(" is not seen.")
        elif pair.question.form == "free":
            summed = sentences(SUMMARIES[pair.question.task], truth) if pair.question.topic == "summary" else ""
            assert pair.question.answer in (REFUSAL, GREETING, ENGLISH_ONLY, report(truth), summed)
    assert {
        "report",
        "tumour",
        "necrosis",
        "many mitoses",
        "many lymphocytes",
        "unanswerable",
        "greeting",
        "language",
    } <= met


def test_a_region_is_asked_for_its_own_necrosis() -> None:
    rng = np.random.default_rng(1)
    slide = next(truth for truth in map(slide_truth, range(50)) if truth.necrosis)
    for truth in (slide, replace(slide, necrosis=None)):
        for _ in range(40):
            pair = region_pair(truth, "seen", rng)
            assert {pair.question.answer, pair.rejected} == {"Yes", "No"}
            if pair.question.text.lower().startswith(("is there necrosis", "is there any necrosis")):
                assert pair.question.answer == ("Yes" if truth.necrosis else "No")


@pytest.mark.parametrize("split", ["seen", "unseen"])
def test_doubts_name_another_value_and_the_answer_stays(split: str) -> None:
    rng = np.random.default_rng(2)
    for seed in range(60):
        truth = slide_truth(seed)
        topic = ATTRIBUTES[seed % len(ATTRIBUTES)]
        question = doubt(topic, truth, split, rng)  # type: ignore[arg-type]
        assert question.answer == topic.answer(truth)
        assert f" {topic.phrase(truth)}." not in question.text


def test_no_examined_sentence_is_trained_on() -> None:
    for finding in FINDINGS:
        assert not {*finding.seen, *finding.negated_seen} & {*finding.unseen, *finding.negated_unseen}
        assert len({*finding.unseen, *finding.negated_unseen}) >= 8
    for texts in (*UNANSWERABLE.values(), *LANGUAGES.values(), GREETINGS):
        assert not set(texts.seen) & set(texts.unseen)
    trained = {text for texts in UNANSWERABLE.values() for text in texts.seen}
    assert not trained & {text for texts in UNSEEN_TOPICS.values() for text in texts}


def test_of_unseen_topics_no_word_is_put_together() -> None:
    everyday = words_of(
        """a are be carry could does for have he how is it long many may much my of on out the there this to patient do
        what should was which will work go back can pay values normal who"""
    )
    apart = {word for texts in UNSEEN_TOPICS.values() for text in texts for word in words_of(text)} - everyday
    rng = np.random.default_rng(4)

    used = {word for _ in range(5_000) for word in words_of(out_of_scope_text((), rng))}

    assert len(apart) > 20
    assert not apart & used


def words_of(text: str) -> set[str]:
    return {"".join(letter for letter in word if letter.isalnum()) for word in text.lower().split()}


def test_a_conversation_is_honest_about_what_can_be_told_and_what_cannot() -> None:
    rng = np.random.default_rng(5)
    asked = [q for seed in range(200) for q in honest_conversation(slide_truth(seed), "seen", rng, 1 + seed % 8)]

    assert len(asked) == sum(1 + seed % 8 for seed in range(200))
    declined = {REFUSAL, GREETING, ENGLISH_ONLY}
    share = sum(question.answer in declined for question in asked) / len(asked)
    assert 0.2 < share < 0.45
    for question in asked:
        assert (question.answer in declined) == question.topic.startswith(("unanswerable", "greeting", "language"))


def test_of_a_region_only_its_necrosis_is_told() -> None:
    rng = np.random.default_rng(6)
    for seed in range(40):
        truth = slide_truth(seed)
        for question in region_conversation(truth, "seen", rng, 4):
            assert question.topic == "necrosis" or question.answer in {REFUSAL, GREETING, ENGLISH_ONLY}


def test_another_language_is_never_answered_with_a_finding() -> None:
    rng = np.random.default_rng(7)
    texts = [foreign_text("seen", rng) for _ in range(1_000)]

    assert {language for language, _ in texts} >= {*LANGUAGES, "Polish", "Russian"}
    assert not {language for language, _ in texts} & set(UNSEEN_LANGUAGES)
    examined = {text for kept in LANGUAGES.values() for text in kept.unseen}
    assert not {text for _, text in texts} & examined


def test_people_type_in_all_manners_and_one_letter_is_wrong_in_a_typing_error() -> None:
    rng = np.random.default_rng(3)
    text = NECROSIS_SEEN.seen[0]
    typed_texts = {typed(text, "seen", rng, yes_no=True) for _ in range(300)}

    assert {text, text.lower(), text.upper(), text.rstrip("?")} <= typed_texts
    manners = dict(examined_manners(text, rng, yes_no=True))
    assert len(manners) == 7
    assert manners["typing error"] != text
    assert abs(len(manners["typing error"]) - len(text)) <= 1
