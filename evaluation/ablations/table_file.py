"""Tables of ablations as files of a run, so that whoever makes one need not know the report."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluation.errors import RunMismatch
from evaluation.run_folder import as_json, write_whole


@dataclass(frozen=True)
class AblationTable:
    """`rows` are texts, made of `numbers`; `notes` say what was done and what it does not show."""

    title: str
    notes: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Any = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Replaces the file as a whole."""
        write_whole(path, as_json(self.as_document()))


def read_tables(folder: Path) -> list[AblationTable]:
    """All tables in the folder, by name of file; none without a folder.

    Raises:
        RunMismatch: one cannot be read.
    """
    tables = []
    for path in sorted(folder.glob("*.json")):
        try:
            tables.append(AblationTable(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise RunMismatch(f"{path.name} holds no table of an ablation: remove it, or make it again.") from error
    return tables
