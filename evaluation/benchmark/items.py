"""A question set as every part of an evaluation sees it, whatever file it came from."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal

Form = Literal["letter", "yes_no", "number", "open"]
CLOSED: Final[tuple[Form, ...]] = ("letter", "yes_no", "number")
# Files of slides and of their features; a slide's own name may hold dots.
_SUFFIX: Final = re.compile(r"\.(?:pt|npy|h5|svs|tiff?|ndpi|mrxs|scn|bif|vms|dcm|czi)$", re.IGNORECASE)
# The first three fields of a TCGA barcode name the patient; drawn sets are named alike.
_BARCODE: Final = re.compile(r"^([A-Za-z0-9]+-[A-Za-z0-9]{2}-[A-Za-z0-9]{4})(?:-|$)")


@dataclass(frozen=True)
class Item:
    """One question. `key` is unique in its set.

    `slide` is the name of the slide without its folder and suffix, `project` the cohort that it belongs to (""
    unknown). `truth` is a letter, Yes or No, a number, or a text; `options` are texts in the order of their letters.
    `label` is the file or label of the set that the task was read from.
    """

    key: str
    task: str
    group: str
    form: Form
    slide: str
    patient: str
    project: str
    question: str
    truth: str
    options: tuple[str, ...] = ()
    label: str = ""

    @property
    def is_closed(self) -> bool:
        """Whether the answer is a letter, Yes or No, or a number."""
        return self.form in CLOSED


@dataclass(frozen=True)
class QuestionSet:
    """`layout` says how the file was read, `notes` what was odd about it: nothing is mended without a word."""

    name: str
    layout: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all items: results of two sets are comparable when it is the same."""
        content = json.dumps([asdict(item) for item in self.items], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def by_key(self) -> dict[str, Item]:
        """The items by their keys."""
        return {item.key: item for item in self.items}

    def slides(self) -> list[str]:
        """Every slide once, in order."""
        return list(dict.fromkeys(item.slide for item in self.items))

    def limited(self, keys: Iterable[str]) -> "QuestionSet":
        """Only these items, in the set's order."""
        wanted = set(keys)
        return QuestionSet(self.name, self.layout, tuple(i for i in self.items if i.key in wanted), self.notes)

    def as_document(self) -> dict[str, Any]:
        """As it is kept beside the answers."""
        items = [asdict(item) for item in self.items]
        return {"name": self.name, "layout": self.layout, "digest": self.digest, "notes": self.notes, "items": items}


def set_from_document(document: dict[str, Any]) -> QuestionSet:
    """The reverse of `as_document`."""
    items = tuple(Item(**{**row, "options": tuple(row["options"])}) for row in document["items"])
    return QuestionSet(document["name"], document["layout"], items, tuple(document["notes"]))


def slide_name(image: str) -> str:
    """The name of a slide in a path of a set: "TCGA-LGG/TCGA-CS-….pt" without folder and suffix."""
    return _SUFFIX.sub("", image.rsplit("/", 1)[-1])


def patient_of(slide: str) -> str:
    """The patient in a barcode; a slide of any other name is a patient of its own."""
    found = _BARCODE.match(slide)
    return found[1] if found else slide


def project_of(image: str) -> str:
    """The folder in a path of WSI-Bench, "" without one."""
    return image.split("/", 1)[0] if "/" in image else ""
