"""A real encoder worker, in a process of its own, that stops short in the middle of slides: something to kill."""

import dataclasses
import multiprocessing
import threading
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from encoders.types import SlideEmbedding, SlideFile, Stage
from server.settings import Settings

# Tiles a batch and, at least, a part: a small slide has many of both.
BATCH_TILES = 2


@dataclasses.dataclass(frozen=True)
class Hold:
    """Where a slide stops: at that share of a stage. `marker` appears when it is there."""

    stage: Stage
    share: float
    marker: Path


def start_worker(settings: Settings, models_dir: Path, holds: Mapping[str, Hold]) -> ForkServerProcess:
    """What `eyepiece worker` runs, with the model in `models_dir`; holds by slide id. The torch import is shared."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["server.worker"])
    process = context.Process(target=run_worker, args=(settings, models_dir, dict(holds)), daemon=True)
    process.start()
    return process


def run_worker(settings: Settings, models_dir: Path, holds: Mapping[str, Hold]) -> None:
    """The body of the process."""
    import torch

    from encoders import feature_parts
    from encoders.hierarchical import region_parts
    from model_store.installed import InstalledModel, open_model
    from server import worker

    torch.set_num_threads(1)  # three slides share batches here: see encoders.tile_encoder.batcher
    encode = worker.encode_slide

    def held_encode(slide: SlideFile, encoders: Any, **options: Any) -> SlideEmbedding:
        hold = holds.get(slide.slide_id)
        caller = options["caller"]
        if hold is not None:
            options["caller"] = dataclasses.replace(caller, on_progress=_stopping(caller.on_progress, hold))
        return encode(slide, encoders, **options)

    def small_batches(_: Settings) -> tuple[InstalledModel, ...]:
        model = open_model(models_dir, settings.model)
        manifest = model.manifest.with_inputs(tile_encoder={"batch_tiles": BATCH_TILES})  # none of a model of regions
        return (dataclasses.replace(model, manifest=manifest),)

    feature_parts.PART_TILES = BATCH_TILES  # type: ignore[misc]
    region_parts._EVERY_S = 0.0  # type: ignore[misc]
    worker.open_served_models = small_batches  # type: ignore[attr-defined]
    worker.encode_slide = held_encode  # type: ignore[assignment]
    worker.run(settings)


def _stopping(report: Any, hold: Hold) -> Any:
    def stop_there(stage: Stage, done: int, total: int) -> None:
        report(stage, done, total)
        if stage == hold.stage and done >= hold.share * total:
            hold.marker.touch()
            threading.Event().wait()

    return stop_there
