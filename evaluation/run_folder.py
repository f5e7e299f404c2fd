"""The folder of a run: one set of questions, any number of models that were asked them, one judge.

set.json                     the questions
targets/NAME/target.json     who was asked, how, and under which conditions
targets/NAME/answers.jsonl   raw replies (evaluation/asking/reply_log.py)
targets/NAME/encodes.jsonl    what the encodes of an ablation took (evaluation/scoring/ablated.py)
ablations/*.json             tables of other ablations (evaluation/ablations/)
judge.json, judge.jsonl      the judge and its raw replies
results.json, numbers.csv, rows.csv, report.html, targets/NAME/answers-as-is.jsonl    written by `score`
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evaluation.asking.conditions import Condition
from evaluation.benchmark.items import QuestionSet, set_from_document
from evaluation.errors import RunMismatch

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


@dataclass(frozen=True)
class AskedTarget:
    """A model that was asked. `conditions` were asked under; `unavailable` it cannot be asked under."""

    name: str
    record: Mapping[str, Any]
    conditions: tuple[Condition, ...]
    unavailable: tuple[Condition, ...]
    seed: int
    paraphrases: Mapping[str, str]

    def as_document(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "record": dict(self.record),
            "conditions": list(self.conditions),
            "unavailable": list(self.unavailable),
            "seed": self.seed,
            "paraphrases": dict(self.paraphrases),
        }


class RunFolder:
    """Paths and documents of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep_set(self, questions: QuestionSet) -> None:
        """Writes the questions, the first time.

        Raises:
            RunMismatch: the folder holds other questions.
        """
        if (self.path / "set.json").is_file():
            if self.questions().digest != questions.digest:
                raise RunMismatch(f"{self.path.name} holds a run of other questions: name another folder with --out.")
            return
        write_whole(self.path / "set.json", as_json(questions.as_document()))

    def questions(self) -> QuestionSet:
        """The questions.

        Raises:
            RunMismatch: there are none.
        """
        return set_from_document(self._document("set.json"))

    def keep_target(self, target: AskedTarget) -> None:
        """Writes who is asked, the first time.

        Raises:
            RunMismatch: another model, or the same with other settings, has that name already.
        """
        path = self.path / "targets" / checked_name(target.name) / "target.json"
        document = json.loads(as_json(target.as_document()))
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != document:
            raise RunMismatch(
                f"`{target.name}` was asked with other settings, model or conditions in this folder: "
                "give it another name."
            )
        write_whole(path, as_json(document))

    def targets(self) -> list[AskedTarget]:
        """All that were asked, by name."""
        names = sorted(path.parent.name for path in self.path.glob("targets/*/target.json"))
        return [self._target(name) for name in names]

    def answers_path(self, name: str) -> Path:
        """The log of a target's replies."""
        return self.path / "targets" / checked_name(name) / "answers.jsonl"

    def encodes_path(self, name: str) -> Path:
        """The log of what the encodes of an ablation took."""
        return self.path / "targets" / checked_name(name) / "encodes.jsonl"

    @property
    def ablations_folder(self) -> Path:
        """Where tables of ablations are that ask nobody."""
        return self.path / "ablations"

    def keep_judge(self, record: Mapping[str, Any], conditions: Sequence[Condition]) -> None:
        """Writes who judges, the first time.

        Raises:
            RunMismatch: another judge, or the same with other prompts, has judged here.
        """
        document = json.loads(as_json({"record": dict(record), "conditions": list(conditions)}))
        if (self.path / "judge.json").is_file() and self.judge() != document:
            raise RunMismatch("Another judge, or other prompts, judged in this folder: their numbers do not compare.")
        write_whole(self.path / "judge.json", as_json(document))

    def judge(self) -> dict[str, Any] | None:
        """Who judges; None where nobody does."""
        return self._document("judge.json") if (self.path / "judge.json").is_file() else None

    @property
    def judge_log_path(self) -> Path:
        """The log of the judge's replies."""
        return self.path / "judge.jsonl"

    def _target(self, name: str) -> AskedTarget:
        document = self._document(f"targets/{name}/target.json")
        return AskedTarget(
            name,
            document["record"],
            tuple(document["conditions"]),
            tuple(document["unavailable"]),
            document["seed"],
            document["paraphrases"],
        )

    def _document(self, name: str) -> dict[str, Any]:
        try:
            document: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunMismatch(f"{self.path.name} holds no run that can be read ({name}): begin with `ask`.") from error
        return document


def checked_name(name: str) -> str:
    """A target's name, which becomes a folder's.

    Raises:
        RunMismatch: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise RunMismatch("A name is of letters, digits, dots, hyphens and underscores, at most 61 of them.")
    return name


def as_json(document: object) -> str:
    """The same text for the same content."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Replaces a file as a whole: a killed process leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
