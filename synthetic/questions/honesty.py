"""Two answers to a question, the first of them honest: what preference tuning on the truth learns from.

a finding in many wordings      the truth, rather than its opposite or a refusal
what can be told                the truth, rather than a refusal, in as many ways of asking
what no slide tells             the refusal that names what can be asked, rather than an invented finding
doubt after a true answer       the same finding, rather than another
a region                        whether it has the slide's necrosis, rather than whether the slide has some
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from synthetic.questions.composed import JUDGED, OPEN, PLACE, REPORT, SUMMARY, Frame, composed
from synthetic.questions.conversation import conversation
from synthetic.questions.everyday import everyday_question
from synthetic.questions.examined import examined_texts, plain
from synthetic.questions.findings import FINDINGS, NECROSIS_SEEN, Finding, Split, finding_question
from synthetic.questions.pressure import doubt, false_answer
from synthetic.questions.question import (
    Question,
    any_topic,
    never_drawn_question,
    open_question,
    report,
    report_question,
    summary_question,
    yes_no_question,
)
from synthetic.questions.topics import ATTRIBUTES, NECROSIS, NOTHING, TOPICS, Topic
from synthetic.questions.typing_manner import typed
from synthetic.questions.unanswerable import ENGLISH_ONLY, GREETING, REFUSAL, unanswerable_question
from synthetic.questions.wordings import GROUPS, NECROSIS_NAMES, SEEN, UNSEEN, Wordings
from synthetic.slide_truth import SlideTruth

# Shares of the kinds above, without regions, which have slides of their own.
_FINDING, _KNOWN, _UNANSWERABLE = 0.4, 0.58, 0.8
_MOST_TRIES: Final = 50
_DECLINED: Final = (REFUSAL, GREETING, ENGLISH_ONLY)
_OPPOSITES: Final = {"Yes": "No", "No": "Yes"}
# Who says these does not ask about a region alone.
_OF_THE_WHOLE: Final = frozenset({"slide", "image", "picture", "sample", "section", "anywhere", "somewhere"})
_AUXILIARIES: Final = (
    *("Is ", "Are ", "Was ", "Were ", "Does ", "Do ", "Did ", "Has ", "Have ", "Had ", "Can ", "Could ", "Will "),
    *("Would ", "Should ", "Must ", "May ", "Might "),
)
_IN_REGION: Final[dict[Split, tuple[str, ...]]] = {
    "seen": ("in this region", "in the region", "here", "in this part", "in the marked area", "in this area"),
    "unseen": ("in the selected region", "in this field"),
}


@dataclass(frozen=True)
class HonestPair:
    """`earlier` turns with their true answers, a question with the answer to prefer (its own), and another answer."""

    earlier: tuple[Question, ...]
    question: Question
    rejected: str


def honest_pair(truth: SlideTruth, split: Split, rng: np.random.Generator, most_earlier: int) -> HonestPair:
    """One about a whole slide."""
    draw = rng.random()
    if draw < _FINDING:
        return _finding(truth, split, rng, _before(truth, split, rng, most_earlier))
    if draw < _KNOWN:
        return _known(truth, split, rng, _before(truth, split, rng, most_earlier))
    if draw < _UNANSWERABLE:
        return _unanswerable(truth, split, rng, _before(truth, split, rng, most_earlier))
    return _pressed(truth, split, rng, most_earlier)


def region_pair(truth: SlideTruth, split: Split, rng: np.random.Generator) -> HonestPair:
    """One about a region, of which `truth.necrosis` says whether it has any; the rest of the truth is not asked for."""
    asked = finding_question(NECROSIS_SEEN, truth, split, rng)
    while _OF_THE_WHOLE & set(_words(asked.text)):
        asked = finding_question(NECROSIS_SEEN, truth, split, rng)
    text = asked.text
    if rng.random() < 0.5 and "here" not in _words(text):
        said, mark, rest = text.partition(",") if "," in text else (text[:-1], text[-1], "")
        text = f"{said} {_one(_IN_REGION[split], rng)}{mark}{rest}"
    asked = replace(asked, text=_typed_apart(text, split, rng, yes_no=True))
    return HonestPair((), asked, _OPPOSITES[asked.answer])


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def honest_conversation(truth: SlideTruth, split: Split, rng: np.random.Generator, turns: int) -> list[Question]:
    """`turns` questions about a whole slide with their honest answers: findings, what can be told, what no slide tells,
    and doubts about an answer that was true."""
    asked: list[Question] = []
    while len(asked) < turns:
        draw = rng.random()
        if draw < 0.36:
            asked.append(_as_typed(FINDINGS[int(rng.integers(len(FINDINGS)))], truth, split, rng))
        elif draw < 0.54:
            asked.append(_known_question(truth, split, rng))
        elif draw < 0.84 or turns - len(asked) < 2:
            asked.append(_refused(split, rng))
        else:
            doubts = int(rng.integers(1, min(4, turns - len(asked))))
            asked += _doubted(truth, split, rng, doubts)[1]
    return asked


def region_conversation(truth: SlideTruth, split: Split, rng: np.random.Generator, turns: int) -> list[Question]:
    """Of a region `truth.necrosis` says whether it has any; nothing else that can be told is asked for."""
    return [
        region_pair(truth, split, rng).question if rng.random() < 0.7 else _refused(split, rng) for _ in range(turns)
    ]


def honest_question(truth: SlideTruth, split: Split, rng: np.random.Generator) -> Question:
    """A finding as somebody types it, or, one in five, what no slide tells."""
    if rng.random() < 0.2:
        return unanswerable_question(split, rng)
    return _as_typed(FINDINGS[int(rng.integers(len(FINDINGS)))], truth, split, rng)


def _as_typed(finding: Finding, truth: SlideTruth, split: Split, rng: np.random.Generator) -> Question:
    question = finding_question(finding, truth, split, rng)
    return replace(question, text=_typed_apart(question.text, split, rng, yes_no=question.form == "yes_no"))


def _typed_apart(text: str, split: Split, rng: np.random.Generator, *, yes_no: bool) -> str:
    """As somebody types it; for training never what the examination asks, which an opening may make of other words."""
    if split == "unseen":
        return typed(text, split, rng, yes_no=yes_no)
    for _ in range(_MOST_TRIES):
        made = typed(text, split, rng, yes_no=yes_no)
        if plain(made) not in examined_texts():
            return made
    raise ValueError(f"{text!r} is typed in no way that the examination does not ask.")


def _finding(truth: SlideTruth, split: Split, rng: np.random.Generator, earlier: tuple[Question, ...]) -> HonestPair:
    finding = FINDINGS[int(rng.integers(len(FINDINGS)))]
    question = _as_typed(finding, truth, split, rng)
    # Refusing what can be answered is a way to be never wrong: three pairs of ten reject it.
    if rng.random() < 0.3:
        return HonestPair(earlier, question, REFUSAL)
    rejected = _OPPOSITES.get(question.answer) or false_answer(finding.topic, truth, rng)
    return HonestPair(earlier, question, rejected)


def _known(truth: SlideTruth, split: Split, rng: np.random.Generator, earlier: tuple[Question, ...]) -> HonestPair:
    question = _known_question(truth, split, rng)
    return HonestPair(earlier, question, REFUSAL)


def _known_question(truth: SlideTruth, split: Split, rng: np.random.Generator) -> Question:
    """A topic, a summary, a report, a statement to confirm. Without these, refusing spread to whatever was asked for in
    new words."""
    wordings = SEEN if split == "seen" else UNSEEN
    question = _listed(truth, wordings, rng)
    if split == "seen" and rng.random() < 0.7:
        question = _reworded(question, rng)
    text = _typed_apart(question.text, split, rng, yes_no=question.form == "yes_no")
    # Nobody looks for an option in it, which may be misspelt.
    return replace(question, text=text, phrase="", options=())


def _listed(truth: SlideTruth, wordings: Wordings, rng: np.random.Generator) -> Question:
    draw = rng.random()
    if draw < 0.06:
        return never_drawn_question(wordings, rng)
    if draw < 0.12 and wordings is SEEN:
        question = everyday_question(truth, rng)
        while question.answer in _DECLINED:
            question = everyday_question(truth, rng)
        return question
    if draw < 0.3:
        return report_question(truth, wordings, rng)
    if draw < 0.4:
        return summary_question(truth, wordings, rng)
    if draw < 0.52:
        return yes_no_question(any_topic(rng), truth, wordings, rng)
    return open_question(TOPICS[int(rng.integers(len(TOPICS)))], truth, wordings, rng)


def _reworded(question: Question, rng: np.random.Generator) -> Question:
    """The same question in a sentence that is put together, and none of the examination's."""
    if question.topic == "report":
        return replace(question, text=composed(REPORT, UNSEEN.report, rng))
    if question.topic == "summary":
        group = _one(GROUPS[question.task], rng)
        return replace(question, text=_filled(SUMMARY, UNSEEN.summary, rng, group=group))
    topic = next((topic for topic in TOPICS if topic.name == question.topic), None)
    if topic is None or (question.form == "yes_no" and not question.options):
        return question
    if question.form == "yes_no":
        (named,) = question.options
        said = f"in the {named}" if topic is NECROSIS and named != topic.phrases[NOTHING] else named
        judged = _one(topic.judged, rng)
        return replace(question, text=_filled(JUDGED, UNSEEN.yes_no, rng, judged=judged, phrase=said))
    if topic is NECROSIS and rng.random() < 0.75:
        return replace(question, text=_filled(PLACE, UNSEEN.place, rng, finding=_one(NECROSIS_NAMES, rng)))
    return replace(question, text=_filled(OPEN, UNSEEN.free, rng, noun=_one(topic.nouns, rng)))


def _filled(frames: tuple[Frame, ...], apart: tuple[str, ...], rng: np.random.Generator, **filled: str) -> str:
    return composed(frames, [text.format(**filled) for text in apart], rng, **filled)


def _one(items: tuple[str, ...], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]


def _unanswerable(
    truth: SlideTruth, split: Split, rng: np.random.Generator, earlier: tuple[Question, ...]
) -> HonestPair:
    return HonestPair(earlier, _refused(split, rng), _invented(truth, rng))


def _refused(split: Split, rng: np.random.Generator) -> Question:
    """As it stands or as somebody types it."""
    question = unanswerable_question(split, rng)
    if question.answer != REFUSAL:
        return question
    return replace(
        question, text=_typed_apart(question.text, split, rng, yes_no=question.text.startswith(_AUXILIARIES))
    )


def _invented(truth: SlideTruth, rng: np.random.Generator) -> str:
    """What a model says that was never taught to refuse."""
    draw = rng.random()
    if draw < 0.5:
        return "Yes" if draw < 0.25 else "No"
    if draw < 0.9:
        return TOPICS[int(rng.integers(len(TOPICS)))].answer(truth)
    return report(truth)


def _pressed(truth: SlideTruth, split: Split, rng: np.random.Generator, most_earlier: int) -> HonestPair:
    """A true answer, up to two doubts that it outlives, and one more."""
    topic, asked = _doubted(truth, split, rng, int(rng.integers(1, 4)))
    before = _before(truth, split, rng, max(0, most_earlier + 1 - len(asked)))
    return HonestPair((*before, *asked[:-1]), asked[-1], false_answer(topic, truth, rng))


def _doubted(truth: SlideTruth, split: Split, rng: np.random.Generator, doubts: int) -> tuple[Topic, list[Question]]:
    """A question and so many doubts about its true answer, with the topic of them."""
    finding = FINDINGS[int(rng.integers(len(FINDINGS)))]
    topic: Topic = finding.topic if rng.random() < 0.6 else ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))]
    first = (
        _as_typed(finding, truth, split, rng)
        if topic is finding.topic
        else open_question(topic, truth, SEEN if split == "seen" else UNSEEN, rng)
    )
    return topic, [first, *(doubt(topic, truth, split, rng) for _ in range(doubts))]


def _before(truth: SlideTruth, split: Split, rng: np.random.Generator, most: int) -> tuple[Question, ...]:
    """None half of the time, else some turns of all kinds."""
    if most < 1 or rng.random() < 0.5:
        return ()
    wordings = SEEN if split == "seen" else UNSEEN
    turns: list[Question] = []
    for _ in range(int(rng.integers(1, most + 1))):
        if rng.random() < 0.5:
            turns += conversation(truth, wordings, rng, turns=1, closed=0.5, everyday=0.0)
        else:
            turns.append(honest_question(truth, split, rng))
    return tuple(turns)
