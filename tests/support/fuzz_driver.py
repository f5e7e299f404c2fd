"""The worker's side of the fuzz test: keeps a child that reads damaged slides, and lives whatever it does."""

import json
import select
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fuzz_child
from mutate_slides import Mutant

# A mutant takes a few ms; this is a hang, or a machine that stands still.
LIMIT_S = 60.0
# What may become of a damaged slide: read, or refused with one of these codes.
KNOWN = {"tiles", "unsupported_format", "unreadable_slide", "slide_too_large"}


@dataclass
class Findings:
    """What became of all mutants: outcomes are counted, whatever must not be is kept with its recipe."""

    outcomes: Counter[str] = field(default_factory=Counter)
    readers: Counter[str] = field(default_factory=Counter)
    regions: int = 0
    compared: int = 0
    own_colours: int = 0
    refused_alone: list[str] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    wrong_pixels: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Mutants looked at."""
        return self.outcomes.total()

    def summary(self) -> str:
        """One line a kind of result."""
        lines = {"outcomes": dict(self.outcomes), "readers": dict(self.readers), "regions read": self.regions}
        lines |= {"of other colours than their directory says": self.own_colours}
        lines |= {"refused although OpenSlide reads it": len(self.refused_alone), "readers that died": self.died}
        return "\n".join(f"{name}: {value}" for name, value in lines.items())

    def note(self, name: str, said: dict[str, Any]) -> None:
        """One mutant's result."""
        self.outcomes[said["outcome"]] += 1
        self.regions += said.get("regions", 0)
        self.readers[f"{said['kind']}: {said['reason']}" if "kind" in said else "not opened"] += 1
        self.compared += said.get("kind") == "fast_tiff"
        self.own_colours += said.get("own_colours", 0)
        if said.get("refused_alone"):
            self.refused_alone.append(name)
        if "bug" in said:
            self.bugs.append(f"{name}\n{said['bug']}")
        self.wrong_pixels += [f"{name}: {wrong}" for wrong in said.get("wrong", [])]
        if said["outcome"] in ("died", "hung"):
            getattr(self, said["outcome"]).append(f"{name}: {said['last_words']}")


class FuzzedReader:
    """A child that reads one mutant after the other; a new one takes over when it dies or hangs."""

    def __init__(self, folder: Path, *, script: str | None = None, limit_s: float = LIMIT_S) -> None:
        """Mutants are written to `folder`, one at a time; `script` is Python to run in place of the child."""
        self._folder = folder
        self._command = [sys.executable, "-P", *([fuzz_child.__file__] if script is None else ["-c", script])]
        self._limit_s = limit_s
        self._child: subprocess.Popen[str] | None = None
        self._made = 0
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed on leaving

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._complaints.close()

    def read(self, mutant: Mutant, seed: int) -> dict[str, Any]:
        """What the child says of it, or that it "died" (and its last words) or "hung"."""
        self._made += 1
        path = self._folder / f"mutant-{self._made}.svs"
        path.write_bytes(mutant.data)
        try:
            return self._ask({"path": str(path), "level0_xy": mutant.level0_xy, "seed": seed})
        finally:
            path.unlink()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):  # it died before it was asked
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
        answered, _, _ = select.select([child.stdout], [], [], self._limit_s)
        answer = child.stdout.readline() if answered else ""
        if answer:
            said: dict[str, Any] = json.loads(answer)
            return said
        self._end()
        return {"outcome": "died" if answered else "hung", "last_words": self._last_words()}

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(BrokenPipeError):  # of what it was never asked
                child.communicate()

    def _start(self) -> "subprocess.Popen[str]":
        self._complaints.seek(0)
        self._complaints.truncate()
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True
        )
