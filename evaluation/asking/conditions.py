"""Conditions under which every question is asked. Beside "as is" they show how much is had without looking at the
slide.

as is                      the question with its slide
no slide                   the question alone; only for models that take a text alone
blank slide                the question with a slide on which nothing is to be seen
wrong slide                with the slide of another patient
wrong slide, same project  with the slide of another patient with the same kind of cancer
paraphrased                in other words, and options in another order

Plans depend on the set, the conditions and the seed alone, so that a run which was killed finds its place again.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from evaluation.benchmark.items import Item, QuestionSet
from evaluation.benchmark.read_options import taken_apart, with_options
from evaluation.errors import EvaluationError
from evaluation.metrics.closed import LETTERS

# Those below and ablations (ablations.py), whose names depend on numbers.
Condition = str
AS_IS: Final[Condition] = "as is"
NO_SLIDE: Final[Condition] = "no slide"
BLANK: Final[Condition] = "blank slide"
WRONG: Final[Condition] = "wrong slide"
WRONG_SAME: Final[Condition] = "wrong slide, same project"
PARAPHRASED: Final[Condition] = "paraphrased"
CONDITIONS: Final[tuple[Condition, ...]] = (AS_IS, NO_SLIDE, BLANK, WRONG, WRONG_SAME, PARAPHRASED)
# Around a question when nobody wrote it in other words: they change the text and leave its meaning.
FRAMES: Final = (
    "Please look at this slide and answer the following. {}",
    "{} Base the answer on what this slide shows.",
    "A colleague asks about this slide: {}",
)


@dataclass(frozen=True)
class Shown:
    """What is shown beside the question. `kind` is "slide", "blank" for a blank one in its place, "none" for nothing,
    or the ablation's name for a slide that lacks something."""

    kind: str
    slide: str = ""


@dataclass(frozen=True)
class Ask:
    """A question as it is put. `wanted` and `options` are of this wording: options may stand in another order."""

    condition: Condition
    item: Item
    shown: Shown
    question: str
    wanted: str
    options: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the question, its words, and what is shown; the same in every run of the same plan."""
        parts = (self.condition, self.item.key, self.shown.kind, self.shown.slide, self.question)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Plan:
    """All that is to be asked, and the rows that a condition has no slide for, by condition."""

    asks: tuple[Ask, ...]
    without_partner: Mapping[Condition, tuple[str, ...]]


def plan_asks(
    questions: QuestionSet, conditions: Sequence[Condition], seed: int = 0, paraphrases: Mapping[str, str] | None = None
) -> Plan:
    """The plan, condition by condition in the set's order. `paraphrases` are other wordings by key of item; questions
    without one get a frame.

    Raises:
        EvaluationError: a paraphrase is of no question in the set.
    """
    if unknown := set(paraphrases or {}) - set(questions.by_key):
        raise EvaluationError(f"A paraphrase is of no question in the set: {sorted(unknown)[0]}.")
    partners = {
        WRONG: wrong_slides(questions.items, seed),
        WRONG_SAME: wrong_slides(questions.items, seed, same_project=True),
    }
    asks: list[Ask] = []
    alone: dict[Condition, tuple[str, ...]] = {}
    for condition in conditions:
        for item in questions.items:
            if condition in partners:
                if (partner := partners[condition].get(item.slide)) is None:
                    alone[condition] = (*alone.get(condition, ()), item.key)
                    continue
                asks.append(_plain(condition, item, Shown("slide", partner)))
            elif condition == PARAPHRASED:
                asks.append(_paraphrased(item, (paraphrases or {}).get(item.key), seed))
            else:
                asks.append(_plain(condition, item, _shown(condition, item, questions)))
    return Plan(tuple(asks), alone)


def wrong_slides(items: Iterable[Item], seed: int, *, same_project: bool = False) -> dict[str, str]:
    """For each slide one of another patient; without a partner a slide is not in it.

    Every slide is drawn a partner of its own, so some are shown more often than others. Without `same_project` any
    other patient's will do, whatever the cancer.
    """
    about = {item.slide: (item.patient, item.project) for item in items}
    partners: dict[str, str] = {}
    for slide, (patient, project) in about.items():
        others = sorted(
            other
            for other, (its_patient, its_project) in about.items()
            if its_patient != patient and (not same_project or (project and its_project == project))
        )
        if others:
            partners[slide] = others[_number(seed, slide, same_project) % len(others)]
    return partners


def _shown(condition: Condition, item: Item, questions: QuestionSet) -> Shown:
    if condition == NO_SLIDE:
        return Shown("none")
    # One blank slide for all: every blank one is like another, and each has to be encoded.
    if condition == BLANK:
        return Shown("blank", questions.items[0].slide)
    return Shown("slide" if condition in CONDITIONS else condition, item.slide)


def _plain(condition: Condition, item: Item, shown: Shown) -> Ask:
    return Ask(condition, item, shown, item.question, item.truth, item.options)


def _paraphrased(item: Item, wording: str | None, seed: int) -> Ask:
    """Options move on by one or more places, so that a model that likes a letter is found out."""
    taken = taken_apart(item.question)
    stem, options, wanted = wording or taken.stem, item.options, item.truth
    if wording is None:
        stem = FRAMES[_number(seed, item.key) % len(FRAMES)].format(stem)
    if item.form == "letter" and (len(taken.options) == len(options) or wording):
        by = 1 + _number(seed, item.key, "options") % (len(options) - 1) if len(options) > 1 else 0
        options = options[-by:] + options[:-by]
        wanted = LETTERS[(LETTERS.index(item.truth) + by) % len(options)]
        stem = with_options(stem, options)
    return Ask(PARAPHRASED, item, Shown("slide", item.slide), stem, wanted, options)


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8])


def shown_slides(asks: Iterable[Ask]) -> Iterator[Shown]:
    """All that has to be shown, each once, slides before what is made of them."""
    found = dict.fromkeys(ask.shown for ask in asks if ask.shown.kind != "none")
    for shown in list(found):
        if shown.kind != "slide":
            found.setdefault(Shown("slide", shown.slide))
    yield from sorted(found, key=lambda shown: shown.kind != "slide")
