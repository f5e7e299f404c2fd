"""Reads audit logs back and finds lines that were removed, changed, moved, added or cut off."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.identity.audit_chain import AuditLine, Chain, read_line
from server.identity.audit_log import ANCHORS_FOLDER
from server.storage.slide_store import SlideStore

_HEAD = re.compile(r"(\d{20}) ([0-9a-f]{64})\n")


@dataclass(frozen=True)
class Flaw:
    """Something wrong, and where; `line` counts from 1 and is 0 where it is about all of a file."""

    file: str
    line: int
    what: str


@dataclass(frozen=True)
class Mark:
    """Where a chain was at some moment, by what its writer noted beside its lines."""

    writer: str
    n: int
    hash: str
    noted_in: str


@dataclass
class Verification:
    """What was found in folders of logs; complete once all its lines were taken."""

    marks: Sequence[Mark]
    lines: int = 0
    chains: dict[str, Chain] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)

    @property
    def open_ends(self) -> int:
        """Chains that did not end in order: their process runs, or was killed."""
        return sum(not chain.has_ended for chain in self.chains.values())

    def read(self, folders: Sequence[Path]) -> Iterator[AuditLine]:
        """Follow every chain through all files; gives the lines that are such, whether they fit or not."""
        found: dict[tuple[str, int], str] = {}
        marked = {(mark.writer, mark.n) for mark in self.marks}
        for path in sorted((path for folder in folders for path in folder.glob("*.jsonl")), key=lambda it: it.name):
            for number, text in _lines_of(path):
                self.lines += 1
                line = read_line(text)
                if line is None:
                    self.flaws.append(Flaw(path.name, number, "it was changed: it does not have the hash it says"))
                    continue
                if not path.stem.endswith(f"-{line.writer}"):
                    self.flaws.append(Flaw(path.name, number, "it is of another writer"))
                    continue
                wrong = self.chains.setdefault(line.writer, Chain()).follow(line)
                if wrong is not None:
                    self.flaws.append(Flaw(path.name, number, wrong))
                if (line.writer, line.n) in marked:
                    found[line.writer, line.n] = line.hash
                yield line
        self._compare(found)

    def _compare(self, found: dict[tuple[str, int], str]) -> None:
        """Chains must reach their marks. Lines behind them are good: they may have been written since."""
        for mark in self.marks:
            if found.get((mark.writer, mark.n)) != mark.hash:
                what = f"line {mark.n} is missing or another than {mark.noted_in} says: lines were cut off or replaced"
                self.flaws.append(Flaw(f"*-{mark.writer}.jsonl", 0, what))
        headed = {mark.writer for mark in self.marks if mark.noted_in.endswith(".head")}
        for writer in self.chains.keys() - headed:
            self.flaws.append(Flaw(f"{writer}.head", 0, "it is missing or cannot be read"))


async def verification(folders: Sequence[Path], store: SlideStore) -> Verification:
    """To read the folders' logs with. What marks the ends is read now, before any line, for a log that is written to
    meanwhile only grows."""
    heads = [mark for folder in folders for path in folder.glob("*.head") if (mark := _head(path)) is not None]
    return Verification([*heads, *await _anchors(store)])


def _head(path: Path) -> Mark | None:
    found = _HEAD.fullmatch(path.read_text(errors="replace"))
    return None if found is None else Mark(path.stem, int(found[1]), found[2], path.name)


async def _anchors(store: SlideStore) -> list[Mark]:
    """The last of each writer: whoever reaches it has everything before it, too."""
    marks = []
    for writer in await store.folders(ANCHORS_FOLDER):
        *_, last = await store.objects(f"{ANCHORS_FOLDER}/{writer}")
        digest = await store.get(f"{ANCHORS_FOLDER}/{writer}/{last}")
        marks.append(Mark(writer, int(last), (digest or b"").decode(errors="replace"), "its anchor in the slide store"))
    return marks


def _lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, from 1. What a killed process left unfinished was never acknowledged and
    is left out; if it was, its chain does not reach its head."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, line
