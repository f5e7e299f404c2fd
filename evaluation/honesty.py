"""Plans the examination of honesty: whether an answer turns with the wording, and what is said where nothing is known.

wording       each of five findings in at least ten wordings of which training saw none, about every slide
unanswerable  what no slide tells, in unseen wordings, and on topics of which training saw no word
greeting      what people type before they ask
pressure      a true answer, then three contradictions
long          one conversation of 40 questions, as the server keeps it
language      other languages: the truth, or an honest refusal, and no false finding

The parts that begin with "stranger's" ask the like in words that were written without sight of training's
(evaluation/strangers_words.py).

Pure: nobody is asked here. How answers are read and counted: evaluation/honesty_score.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from evaluation import strangers_words
from evaluation.exam import Specimen
from synthetic.questions.findings import FINDINGS, Finding
from synthetic.questions.other_languages import LANGUAGES, UNSEEN_LANGUAGES
from synthetic.questions.pressure import doubt
from synthetic.questions.question import Question, open_question, report
from synthetic.questions.topics import ATTRIBUTES, NECROSIS, Topic
from synthetic.questions.typing_manner import examined_manners
from synthetic.questions.unanswerable import (
    GREETINGS,
    UNANSWERABLE,
    UNSEEN_TOPICS,
    foreign_question,
    greeting_question,
    refusal_question,
)
from synthetic.questions.wordings import UNSEEN
from synthetic.slide_truth import SlideTruth, slide_truth

Part = Literal[
    "wording",
    "unanswerable",
    "unseen topic",
    "greeting",
    "pressure",
    "long",
    "language",
    "stranger's wording",
    "stranger's unanswerable",
    "stranger's topic",
    "stranger's report",
    "stranger's pressure",
    "stranger's language",
]
LONG_TURNS: Final = 40
DOUBTS: Final = 3
# Far from the seeds of the other examinations.
FIRST_SEED: Final = 2_000_200_000
# Of each kind, how many are put to one slide: all wordings of a finding, of the rest a share that goes round.
_REFUSED_PER_SLIDE, _UNSEEN_TOPICS_PER_SLIDE, _GREETINGS_PER_SLIDE, _FOREIGN_PER_SLIDE = 10, 5, 1, 8
_PRESSED_PER_SLIDE, _LONG_SLIDES, _REPORTS_PER_SLIDE = 3, 5, 2
# What each of the unseen questions asks for, in their order: a finding's name, "place" of necrosis, or nothing that can
# be answered by one sentence.
_ABOUT: Final[dict[str, tuple[str, ...]]] = {
    "German": ("tumour", "place", "many mitoses", "", "grade", "tumour", ""),
    "French": ("tumour", "place", "many mitoses", "", "grade", ""),
    "Spanish": ("tumour", "place", "many mitoses", "", "grade", ""),
    "Chinese": ("tumour", "place", "many mitoses", ""),
    "Italian": ("tumour", "place", "grade"),
    "Dutch": ("tumour", "place"),
}


@dataclass(frozen=True)
class HonestDialogue:
    """Questions put to a drawn slide in one conversation; `group` is the finding, the topic or the language.

    `wording` numbers a finding's wordings from 0, the same for every slide. A foreign question has in `meant` the same
    question in English, for whoever answers it all the same."""

    part: Part
    group: str
    truth: SlideTruth
    questions: tuple[Question, ...]
    wording: int = 0
    manner: str = "plain"
    meant: Question | None = None

    @property
    def specimen(self) -> Specimen:
        """What it is put to."""
        return Specimen(self.truth.seed)


def plan_honesty(slides: int, first_seed: int = FIRST_SEED) -> list[HonestDialogue]:
    """All dialogues about consecutive seeds; the same arguments give the same."""
    truths = [slide_truth(seed) for seed in range(first_seed, first_seed + slides)]
    return [dialogue for place, truth in enumerate(truths) for dialogue in _of_slide(place, truth)]


def _of_slide(place: int, truth: SlideTruth) -> Iterator[HonestDialogue]:
    for finding in FINDINGS:
        yield from _wordings(finding, truth)
    yield from _refused(place, truth)
    yield from _foreign(place, truth)
    yield from _pressed(place, truth)
    yield from _strangers(place, truth)
    if place < _LONG_SLIDES:
        yield HonestDialogue("long", "long", truth, _long(truth))


def _wordings(finding: Finding, truth: SlideTruth) -> Iterator[HonestDialogue]:
    """Every unseen wording as it stands, and one of them in every manner of typing."""
    texts = [(text, False) for text in finding.texts("unseen")]
    texts += [(text, True) for text in finding.texts("unseen", negated=True)]
    manners = [("plain", text, negated) for text, negated in texts]
    # The same disturbances for every slide: a wording is what can be asked of all of them.
    rng = np.random.default_rng([FINDINGS.index(finding), 41])
    for text, negated in (texts[0], texts[1]):
        disturbed = examined_manners(text, rng, yes_no=finding.holds is not None)[1:]
        manners += [(manner, changed, negated) for manner, changed in disturbed]
    for wording, (manner, text, negated) in enumerate(manners):
        question = finding.question(truth, text, negated=negated)
        yield HonestDialogue("wording", finding.name, truth, (question,), wording, manner)


def _refused(place: int, truth: SlideTruth) -> Iterator[HonestDialogue]:
    known = [(topic, text) for topic, texts in UNANSWERABLE.items() for text in texts.unseen]
    for topic, text in _round(known, place, _REFUSED_PER_SLIDE):
        yield HonestDialogue("unanswerable", topic, truth, (refusal_question(topic, text),))
    unseen = [(topic, text) for topic, texts in UNSEEN_TOPICS.items() for text in texts]
    for topic, text in _round(unseen, place, _UNSEEN_TOPICS_PER_SLIDE):
        yield HonestDialogue("unseen topic", topic, truth, (refusal_question(topic, text),))
    for _, text in _round([("", text) for text in GREETINGS.unseen], place, _GREETINGS_PER_SLIDE):
        yield HonestDialogue("greeting", "greeting", truth, (greeting_question(text),))


def _foreign(place: int, truth: SlideTruth) -> Iterator[HonestDialogue]:
    asked = [
        (language, text, about)
        for language, texts in [
            *((language, texts.unseen) for language, texts in LANGUAGES.items()),
            *UNSEEN_LANGUAGES.items(),
        ]
        for text, about in zip(texts, _ABOUT[language], strict=True)
    ]
    for number in range(_FOREIGN_PER_SLIDE):
        language, text, about = asked[(place * _FOREIGN_PER_SLIDE + number) % len(asked)]
        question = foreign_question(language, text)
        yield HonestDialogue("language", language, truth, (question,), meant=_meant(about, truth))


def _strangers(place: int, truth: SlideTruth) -> Iterator[HonestDialogue]:
    for finding in FINDINGS:
        for text in strangers_words.FINDINGS[finding.name]:
            yield HonestDialogue("stranger's wording", finding.name, truth, (finding.question(truth, text),))
        for text in strangers_words.NEGATED.get(finding.name, ()):
            asked = finding.question(truth, text, negated=True)
            yield HonestDialogue("stranger's wording", finding.name, truth, (asked,))
    known = [(topic, text) for topic, texts in strangers_words.UNANSWERABLE.items() for text in texts]
    for topic, text in _round(known, place, _REFUSED_PER_SLIDE):
        yield HonestDialogue("stranger's unanswerable", topic, truth, (refusal_question(topic, text),))
    other = [(topic, text) for topic, texts in strangers_words.TOPICS.items() for text in texts]
    for topic, text in _round(other, place, _UNSEEN_TOPICS_PER_SLIDE):
        yield HonestDialogue("stranger's topic", topic, truth, (refusal_question(topic, text),))
    for _, text in _round([("", text) for text in strangers_words.REPORTS], place, _REPORTS_PER_SLIDE):
        asked = Question("Report", "report", "free", text, report(truth))
        yield HonestDialogue("stranger's report", "report", truth, (asked,))
    doubted: Topic = ATTRIBUTES[place % len(ATTRIBUTES)]
    doubts = _round([(doubted.name, text) for text in strangers_words.DOUBTS], place, DOUBTS)
    first = open_question(doubted, truth, UNSEEN, np.random.default_rng([truth.seed, 53]))
    stays = tuple(Question(doubted.task, name, "free", text, doubted.answer(truth)) for name, text in doubts)
    yield HonestDialogue("stranger's pressure", doubted.name, truth, (first, *stays))
    foreign = [
        (language, text, about) for language, texts in strangers_words.LANGUAGES.items() for text, about in texts
    ]
    for number in range(_FOREIGN_PER_SLIDE):
        language, text, about = foreign[(place * _FOREIGN_PER_SLIDE + number) % len(foreign)]
        asked = foreign_question(language, text)
        yield HonestDialogue("stranger's language", language, truth, (asked,), meant=_meant(about, truth))


def _meant(about: str, truth: SlideTruth) -> Question | None:
    if about == "place":
        return Question(NECROSIS.task, NECROSIS.name, "free", "Where is the necrosis?", NECROSIS.answer(truth))
    return next((finding.question(truth, finding.unseen[0]) for finding in FINDINGS if finding.name == about), None)


def _pressed(place: int, truth: SlideTruth) -> Iterator[HonestDialogue]:
    """Three attributes by turns, each asked openly and then contradicted."""
    for number in range(_PRESSED_PER_SLIDE):
        topic: Topic = ATTRIBUTES[(place * _PRESSED_PER_SLIDE + number) % len(ATTRIBUTES)]
        rng = np.random.default_rng([truth.seed, number, 43])
        doubts = (doubt(topic, truth, "unseen", rng) for _ in range(DOUBTS))
        yield HonestDialogue("pressure", topic.name, truth, (open_question(topic, truth, UNSEEN, rng), *doubts))


def _long(truth: SlideTruth) -> tuple[Question, ...]:
    """Findings and attributes in unseen wordings, and one in five that no slide tells."""
    rng = np.random.default_rng([truth.seed, 47])
    refused = [(topic, text) for topic, texts in UNANSWERABLE.items() for text in texts.unseen]
    questions: list[Question] = []
    for _ in range(LONG_TURNS):
        draw = rng.random()
        if draw < 0.2:
            questions.append(refusal_question(*refused[int(rng.integers(len(refused)))]))
        elif draw < 0.6:
            finding = FINDINGS[int(rng.integers(len(FINDINGS)))]
            texts = finding.texts("unseen")
            questions.append(finding.question(truth, texts[int(rng.integers(len(texts)))]))
        else:
            topic = ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))]
            questions.append(replace(open_question(topic, truth, UNSEEN, rng)))
    return tuple(questions)


def _round(items: Sequence[tuple[str, str]], place: int, count: int) -> Iterator[tuple[str, str]]:
    """`count` of the items, beginning where the slide before ended."""
    for number in range(count):
        yield items[(place * count + number) % len(items)]
