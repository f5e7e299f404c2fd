"""The checkpoints that LLaVA's own code made, laid out as `fetch` would lay them out."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toy_checkpoint import Toy

from encoders.expected_shapes import expected_shapes
from model_store.convert.convert_model import convert_model
from model_store.installed import InstalledModel
from model_store.manifest import Manifest

REFERENCE = Path(__file__).parents[1] / "model_store" / "reference_checkpoints"
BASES = {"merged": None, "lora": "merged", "projector": "base"}


@dataclass(frozen=True)
class RecordedAnswer:
    """What the reference answered greedily; `prompt_ids` have -200 where the slide stands."""

    slide: str
    question: str
    prompt_ids: list[int]
    token_ids: list[int]
    text: str


def recorded_answers(layout: str) -> list[RecordedAnswer]:
    answers: dict[str, list[dict[str, Any]]] = json.loads((REFERENCE / "answers.json").read_text())
    return [RecordedAnswer(**answer) for answer in answers[layout]]


def convert_reference(layout: str, manifest: Manifest, downloads: Path, models_dir: Path) -> InstalledModel:
    """The checkpoint with a toy's encoders, converted."""
    Toy(downloads, manifest).write_encoders()
    shutil.copytree(REFERENCE / layout, downloads / "llm")
    base = BASES[layout]
    if base is not None:
        shutil.copytree(REFERENCE / base, downloads / "llm_base")
    return convert_model(manifest, downloads, models_dir, expected_shapes(manifest), lambda line: None)
