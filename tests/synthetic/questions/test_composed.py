"""Sentences put together for training: of many forms, sound, and none that the examination asks."""

from itertools import zip_longest

import numpy as np
import pytest

from synthetic.questions import composed as frames
from synthetic.questions.composed import composed
from synthetic.questions.examined import examined_texts, plain
from synthetic.questions.findings import FINDINGS, finding_question
from synthetic.questions.honesty import honest_conversation, honest_pair
from synthetic.questions.pressure import doubt
from synthetic.questions.question import SUMMARIES, report, sentences
from synthetic.questions.topics import ATTRIBUTES, TOPICS
from synthetic.questions.unanswerable import REFUSAL, UNANSWERABLE, UNSEEN_TOPICS, unanswerable_question
from synthetic.questions.wordings import GROUPS, NECROSIS_NAMES, NEVER_DRAWN, SEEN, UNSEEN
from synthetic.slide_truth import slide_truth

ALL = {
    name: value
    for name, value in vars(frames).items()
    if name.isupper() and not name.startswith("_") and isinstance(value, tuple)
}
FILLED = {
    **{"N": "necrosis", "be": "is", "Be": "Is", "Have": "Has", "claim": "grade 1", "noun": "growth pattern"},
    **{"finding": "dead tissue", "group": "tissue regions", "judged": "stroma", "phrase": "loose", "plural": "mitoses"},
}


@pytest.mark.parametrize("name", ALL)
def test_every_frame_makes_sentences_without_a_gap(name: str) -> None:
    rng = np.random.default_rng(0)
    for frame in ALL[name]:
        assert all(isinstance(part, tuple) for part in frame), frame
        for _ in range(30):
            text = composed((frame,), (), rng, **FILLED)
            assert "{" not in text
            assert "  " not in text
            assert text == text.strip()


def test_what_is_kept_apart_is_never_made_in_whatever_letters() -> None:
    frame = ((("is it ", "IS IT "), ("here", "there"), ("?", "!")),)
    rng = np.random.default_rng(1)

    made = {composed(frame, ["Is it HERE?"], rng) for _ in range(50)}

    assert {plain(text) for text in made} == {"isitthere"}
    with pytest.raises(ValueError, match="nothing but"):
        composed(frame, ["Is it here", "is it there"], rng)


def test_training_puts_no_examined_question_together() -> None:
    rng = np.random.default_rng(2)
    examined = {plain(text) for finding in FINDINGS for text in (*finding.unseen, *finding.negated_unseen)}
    asked = {
        plain(finding_question(finding, slide_truth(seed), "seen", rng).text)
        for seed in range(400)
        for finding in FINDINGS
    }
    assert len(asked) > 700, "hardly any sentence comes twice"
    assert not asked & examined

    refused = {plain(text) for topic in UNANSWERABLE.values() for text in topic.unseen}
    refused |= {plain(text) for texts in UNSEEN_TOPICS.values() for text in texts}
    assert not {plain(unanswerable_question("seen", rng).text) for _ in range(2_000)} & refused


def test_a_negated_sentence_gets_the_opposite_answer() -> None:
    rng = np.random.default_rng(3)
    denied = (
        *("no ", "free of", "without", "clear of", "devoid of", "absent", "missing", "not present", "not to be seen"),
        *("lack", "benign", "normal", "healthy", "harmless", "few", "rare", "low", "hardly", "sparse"),
        *("scarce", "scanty", "uncommon", "infrequent", "small", "slight", "negligible", "reduced"),
    )
    for seed in range(300):
        truth = slide_truth(seed)
        for finding in FINDINGS:
            if finding.holds is None:
                continue
            question = finding_question(finding, truth, "seen", rng)
            is_denied = any(word in question.text.lower() for word in denied)
            assert question.answer == ("Yes" if finding.holds(truth) != is_denied else "No"), question.text


def test_doubts_are_many_and_name_another_value() -> None:
    rng = np.random.default_rng(4)
    texts = set()
    for seed in range(400):
        truth, topic = slide_truth(seed), ATTRIBUTES[seed % len(ATTRIBUTES)]
        question = doubt(topic, truth, "seen", rng)
        texts.add(question.text)
        assert question.answer == topic.answer(truth)
    assert len(texts) > 200


def test_what_can_be_told_is_asked_for_in_many_words_and_never_in_the_examinations() -> None:
    rng = np.random.default_rng(5)
    told = {topic.name: topic for topic in TOPICS}
    texts: dict[str, set[str]] = {}
    for seed in range(4_000):
        truth = slide_truth(seed % 60)
        pair = honest_pair(truth, "seen", rng, 0)
        if pair.rejected != REFUSAL or pair.question.form != "free":
            continue
        texts.setdefault(pair.question.topic, set()).add(plain(pair.question.text))
        if pair.question.topic == "report":
            assert pair.question.answer == report(truth)
        elif pair.question.topic == "never drawn":
            assert pair.question.answer.endswith(" is not seen.")
        elif pair.question.topic == "summary":
            assert pair.question.answer == sentences(SUMMARIES[pair.question.task], truth)
        else:
            assert pair.question.answer == told[pair.question.topic].answer(truth)

    assert texts.keys() == {"report", "summary", "never drawn", *told}
    assert len(texts["report"]) > 100
    assert len(texts["summary"]) > 40
    examined = {plain(text.format(noun=noun)) for text in UNSEEN.free for topic in TOPICS for noun in topic.nouns}
    examined |= {plain(text.format(finding=name)) for text in UNSEEN.place for name in NECROSIS_NAMES}
    examined |= {
        plain(text.format(group=name)) for text in UNSEEN.summary for names in GROUPS.values() for name in names
    }
    assert not set().union(*texts.values()) & {*examined, *map(plain, UNSEEN.report)}


def test_no_list_of_training_holds_what_the_examination_asks() -> None:
    wordings = (*SEEN.free, *SEEN.choice, *SEEN.yes_no, *SEEN.presence, *SEEN.absence, *SEEN.place, *SEEN.report)
    names = (*NECROSIS_NAMES, *NEVER_DRAWN)
    listed = {
        plain(text.format(noun=noun, judged=judged, phrase=phrase, finding=name))
        for topic in TOPICS
        for noun, judged in zip_longest(topic.nouns, topic.judged, fillvalue=topic.nouns[0])
        for phrase in topic.phrases.values()
        for text in wordings
        for name in names
    }
    listed |= {plain(text) for finding in FINDINGS for text in (*finding.seen, *finding.negated_seen)}

    assert len(listed) > 1_500
    assert not listed & examined_texts()


def test_typed_as_people_type_it_is_still_nothing_that_the_examination_asks() -> None:
    rng = np.random.default_rng(8)
    asked = [
        plain(question.text)
        for seed in range(1_500)
        for question in honest_conversation(slide_truth(seed % 60), "seen", rng, 8)
    ]

    assert not set(asked) & examined_texts()


def test_a_statement_put_together_is_confirmed_or_denied_as_the_listed_one() -> None:
    rng = np.random.default_rng(6)
    topics = {topic.name: topic for topic in TOPICS}
    asked = 0
    for seed in range(1_500):
        truth = slide_truth(seed % 60)
        question = honest_pair(truth, "seen", rng, 0).question
        if question.form != "yes_no" or question.topic not in topics:
            continue
        asked += 1
        phrases = topics[question.topic].phrases.values()
        words = f" {''.join(letter for letter in question.text.lower() if letter.isalnum() or letter == ' ')} "
        named = next((phrase for phrase in phrases if f" {phrase} " in words), None)
        if named:  # not misspelt
            assert question.answer == ("Yes" if named == topics[question.topic].phrase(truth) else "No"), question
    assert asked > 30
