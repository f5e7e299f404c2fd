"""What a run counted, as a table; it is good when there is no finding."""

from collections import Counter
from dataclasses import dataclass

from chaos.audit import JobCounts
from chaos.plan import VICTIMS
from chaos.poison import Poison


@dataclass(frozen=True)
class Poisoned:
    """A poisoned slide: how often it had to be killed, what became of it, how many others got ready meanwhile."""

    poison: Poison
    doses: int
    code: str
    ready_meanwhile: int


@dataclass(frozen=True)
class Report:
    """All counts of a run. `findings` are what must not be, a sentence each."""

    seed: int
    took_s: float
    slides: int
    ready: int
    poisoned: tuple[Poisoned, ...]
    kills: Counter[str]
    kills_moved: int
    ambushes: int
    jobs: JobCounts
    requeued: int
    ready_said_again: int
    uploaded_twice: int
    questions: int
    answers: int
    streams_resumed: int
    clear_errors: Counter[str]
    findings: tuple[str, ...]
    openmp_pages: int = 0
    left_by_vllm: int = 0

    def count(self, kind: str) -> int:
        """Findings that begin with this word."""
        return sum(finding.startswith(f"{kind}:") for finding in self.findings)

    def table(self) -> str:
        """For a person."""
        rows = [*self._what_happened(), *self._what_may_not_be()]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        return "\n".join([*lines, *(f"  ! {finding}" for finding in self.findings)])

    def _what_happened(self) -> list[tuple[str, object]]:
        kills = ", ".join(f"{self.kills[victim]} {victim}" for victim in VICTIMS)
        poisoned = [
            (f"poisoned: {each.poison}", f"{each.code} after {each.doses}; {each.ready_meanwhile} others ready by then")
            for each in self.poisoned
        ]
        return [
            ("seed", self.seed),
            ("seconds", round(self.took_s)),
            ("slides uploaded", f"{self.slides}, {self.uploaded_twice} of them twice"),
            ("slides ready", self.ready),
            *poisoned,
            ("kills", f"{self.kills.total()}: {kills}; {self.kills_moved} moved to another slide"),
            ("  of workers in the slide encoder", self.ambushes),
            ("encodes started", self.jobs.starts),
            ("  lost leases", self.jobs.lost_leases),
            ("  errors", self.jobs.errors),
            ("  jobs queued again by the reconciler", self.requeued),
            ("  ready said again", self.ready_said_again),
            ("questions", self.questions),
            ("  answered, and right", self.answers),
            ("event streams resumed", self.streams_resumed),
            ("left in /dev/shm by OpenMP, 1 KiB each", self.openmp_pages),
            ("left in TMPDIR by vLLM, sockets above all", self.left_by_vllm),
            *((f"clear errors, {what}", count) for what, count in sorted(self.clear_errors.items())),
        ]

    def _what_may_not_be(self) -> list[tuple[str, object]]:
        kinds = ("lost", "different", "duplicate", "orphan", "wrong")
        others = len(self.findings) - sum(self.count(kind) for kind in kinds)
        return [*((kind, self.count(kind)) for kind in kinds), ("other findings", others)]
