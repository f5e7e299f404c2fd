"""Criteria that a model has to reach in an examination, each measured from the judgements."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

from evaluation.exam import (
    ANOTHER_SLIDE,
    AS_IS,
    FINER,
    FOLLOW_UP,
    PLACE,
    RESTAINED,
    SHUFFLED,
    UNSEEN_WORDINGS,
)
from evaluation.judge import KINDS, Judgement, Kind
from evaluation.score import chance_agreement, grouped, same_questions, score
from synthetic.questions.topics import NECROSIS, TOPICS


@dataclass(frozen=True)
class Thresholds:
    """Shares, 0 … 1; `slides` must have been asked about as they are."""

    slides: int
    closed: float
    closed_topic: float
    open: float
    open_attribute: float
    from_chance: float
    place_fall: float
    from_reference: float


FULL: Final = Thresholds(
    slides=60,
    closed=0.95,
    closed_topic=0.85,
    open=0.90,
    open_attribute=0.90,
    from_chance=0.10,
    place_fall=0.20,
    from_reference=0.05,
)
# A dozen slides: one wrong answer of a topic weighs 7 points, so what is left of the limits is what chance can do.
SHORT: Final = Thresholds(
    slides=12,
    closed=0.90,
    closed_topic=0.70,
    open=0.85,
    open_attribute=0.60,
    from_chance=0.15,
    place_fall=0.20,
    from_reference=0.12,
)


@dataclass(frozen=True)
class Criterion:
    """One line: what is asked for, what was measured, and whether that is enough."""

    name: str
    measured: str
    is_met: bool


def check(judgements: Sequence[Judgement], limits: Thresholds) -> list[Criterion]:
    """Every criterion of an examination."""
    by_condition = grouped(judgements, lambda judgement: judgement.asked.condition)
    return [criterion for rule in _RULES for criterion in rule(_Measured(by_condition), limits)]


@dataclass(frozen=True)
class _Measured:
    """The judgements by condition."""

    by_condition: dict[str, list[Judgement]]

    def of(self, condition: str, *kinds: Kind) -> list[Judgement]:
        return [j for j in self.by_condition.get(condition, []) if not kinds or j.kind in kinds]


def _slides(measured: _Measured, limits: Thresholds) -> Iterator[Criterion]:
    slides = len({j.asked.truth.seed for j in measured.of(AS_IS)})
    yield Criterion(f"at least {limits.slides} slides", str(slides), slides >= limits.slides)


def _closed(measured: _Measured, limits: Thresholds) -> Iterator[Criterion]:
    closed = measured.of(AS_IS, "closed")
    yield _at_least("closed questions", closed, limits.closed)
    yield _each("closed questions", "topic", grouped(closed, lambda j: j.topic), limits.closed_topic)


def _open(measured: _Measured, limits: Thresholds) -> Iterator[Criterion]:
    for condition in (AS_IS, UNSEEN_WORDINGS):
        for kind, name in (("open", "open answers"), ("report", "reports")):
            found = [j for j in measured.of(condition) if j.kind == kind]
            yield _at_least(f"{name}, {condition}", found, limits.open)
            yield _each(f"{name}, {condition}", "attribute", grouped(found, _attribute), limits.open_attribute)


def _like_first_turns(measured: _Measured, limits: Thresholds) -> Iterator[Criterion]:
    yield from _like_reference(measured, FOLLOW_UP, limits)


def _looks(measured: _Measured, limits: Thresholds) -> Iterator[Criterion]:
    for kind in KINDS:
        found = measured.of(ANOTHER_SLIDE, kind)
        agreement, chance = score(found).share, chance_agreement(found)
        name = f"{ANOTHER_SLIDE}, {_NAMES[kind]}: agreement within {_points(limits.from_chance)} of chance"
        yield Criterion(
            name, f"{_percent(agreement)}, chance {_percent(chance)}", abs(agreement - chance) <= limits.from_chance
        )


def _places(measured: _Measured, limits: Thresholds) -> Iterator[Criterion]:
    in_place = measured.of(PLACE)
    shuffled = [j for j in measured.of(SHUFFLED) if j.topic == NECROSIS.name]
    fall = score(in_place).share - score(shuffled).share
    name = f"{SHUFFLED}: where the necrosis is, falls by at least {_points(limits.place_fall)}"
    measured_text = f"{_percent(score(in_place).share)} → {_percent(score(shuffled).share)}"
    yield Criterion(name, measured_text, fall >= limits.place_fall)


def _elsewhere(measured: _Measured, limits: Thresholds) -> Iterator[Criterion]:
    for condition in (FINER, RESTAINED):
        yield from _like_reference(measured, condition, limits)


_RULES: Final[tuple[Callable[[_Measured, Thresholds], Iterator[Criterion]], ...]] = (
    _slides,
    _closed,
    _open,
    _like_first_turns,
    _looks,
    _places,
    _elsewhere,
)
_ATTRIBUTES: Final = {topic.name: topic.attribute for topic in TOPICS}
_NAMES: Final[dict[Kind, str]] = {"closed": "closed questions", "open": "open answers", "report": "reports"}


def _at_least(name: str, judgements: Sequence[Judgement], least: float) -> Criterion:
    share = score(judgements).share
    return Criterion(f"{name}: at least {least:.0%} right", _percent(share), share >= least)


def _each(name: str, what: str, groups: dict[str, list[Judgement]], least: float) -> Criterion:
    """Names those that are below, else the lowest."""
    shares = sorted((score(group).share, key) for key, group in groups.items())
    below = [pair for pair in shares if pair[0] < least]
    text = ", ".join(f"{key} {_percent(share)}" for share, key in below or shares[:1])
    return Criterion(f"{name}: no {what} under {least:.0%}", text or "nothing asked", bool(shares) and not below)


def _attribute(judgement: Judgement) -> str:
    """What of the slide it is about: a diagnosis is about the pattern, a stage about the extent."""
    return _ATTRIBUTES.get(judgement.topic, judgement.topic)


def _like_reference(measured: _Measured, condition: str, limits: Thresholds) -> Iterator[Criterion]:
    """The same questions about the same slides: as good as when asked as is, one by one."""
    for name, kinds in _KINDS_COMPARED:
        found = measured.of(condition, *kinds)
        reference = same_questions(measured.of(AS_IS, *kinds), found)
        share, expected = score(found).share, score(reference).share
        yield Criterion(
            f"{condition}, {name}: within {_points(limits.from_reference)} of the same questions {AS_IS}",
            f"{_percent(share)}, {AS_IS} {_percent(expected)}",
            share >= expected - limits.from_reference,
        )


_KINDS_COMPARED: Final[tuple[tuple[str, tuple[Kind, ...]], ...]] = (
    ("closed questions", ("closed",)),
    ("open answers and reports", ("open", "report")),
)


def _points(share: float) -> str:
    return f"{share * 100:.0f} points"


def _percent(share: float) -> str:
    return "nothing asked" if isnan(share) else f"{share:.1%}"


def missed(criteria: Iterable[Criterion]) -> list[str]:
    """The lines that were not reached, in words."""
    return [f"{criterion.name} ({criterion.measured})" for criterion in criteria if not criterion.is_met]
