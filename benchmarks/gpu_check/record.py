"""The run as one JSON file: device, versions, every check's outcome. Nothing in it says whose machine it was."""

import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

from benchmarks.gpu_check.results import Outcome
from benchmarks.gpu_check.setting import Setting
from benchmarks.machine import machine, versions

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
PACKAGES: Final = ("torch", "timm", "transformers", "safetensors", "h5py", "numpy", "pydantic", "triton", "flash-attn")


def record_path(folder: Path, device: str, day: date) -> Path:
    """`gpu_check-<device>-<date>.json`: a run of the same day is replaced."""
    return folder / f"gpu_check-{_in_a_file_name(device)}-{day.isoformat()}.json"


def write_record(path: Path, setting: Setting, day: date, device: dict[str, str], outcomes: Sequence[Outcome]) -> None:
    """Writes it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": "gpu_check",
        "date": day.isoformat(),
        "small": setting.small,
        "machine": machine() | device,
        "versions": versions(PACKAGES),
        "checks": [outcome.model_dump(mode="json", exclude_defaults=True) for outcome in outcomes],
    }
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.rename(path)


def _in_a_file_name(device: str) -> str:
    """ "NVIDIA H100 80GB HBM3" → "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
