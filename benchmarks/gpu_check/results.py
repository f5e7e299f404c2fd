"""Results of the checks, as text for a person and as JSON for later."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["passed", "failed", "skipped"]


class _Frozen(BaseModel):
    # A value that is not finite is written as a string: JSON has no word for it.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Number(_Frozen):
    """One measured number. Outside `at_least` … `at_most` the check fails; a missed `target` is only shown.

    `source` says where the limit or the target comes from.
    """

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    target: float | None = None
    source: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is finite and within its limits."""
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return math.isfinite(self.value) and above and below

    @property
    def fault(self) -> str:
        """What is wrong with it where it does not hold."""
        return f"{self.text}{f', {self.source}' if self.source else ''}"

    @property
    def text(self) -> str:
        """`name: value unit (what is wanted)`."""
        bounds = (("at least", self.at_least), ("at most", self.at_most), ("target", self.target))
        wanted = ", ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        return f"{self.name}: {self.value:.7g}{f' {self.unit}' if self.unit else ''}{f' ({wanted})' if wanted else ''}"


class Finding(_Frozen):
    """What a check returns: numbers, facts that are no numbers by name, and sentences for who reads them."""

    numbers: tuple[Number, ...] = ()
    facts: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Outcome(_Frozen):
    """What became of one check; `cpu_s` is the host's, `reason` says why it failed or was skipped."""

    check: str
    state: State
    took_s: float
    cpu_s: float = 0.0
    reason: str = ""
    numbers: tuple[Number, ...] = ()
    facts: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One line, and one for each number, fact and note."""
        why = f", {self.reason}" if self.reason else ""
        head = f"{self.check}: {self.state}{why} ({self.took_s:.1f} s, {self.cpu_s:.1f} s of the CPU)"
        facts = [f"{name}: {value}" for name, value in self.facts.items()]
        return "\n  ".join([head, *facts, *(number.text for number in self.numbers), *self.notes])

    def number(self, name: str) -> float | None:
        """The number of that name, if the check came so far."""
        return next((number.value for number in self.numbers if number.name == name), None)


class CheckSkipped(Exception):
    """Raised by a check that has nothing to say here; the text is the reason."""


def last_line(outcomes: Sequence[Outcome]) -> str:
    """`N passed, N failed, N skipped`."""
    states = [outcome.state for outcome in outcomes]
    return f"{states.count('passed')} passed, {states.count('failed')} failed, {states.count('skipped')} skipped"
