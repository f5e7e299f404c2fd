"""Models that differ in their language model alone have one set of encoders in a worker."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from encoders.encoder_id import encoder_id
from encoders.pipeline import Encoders
from model_store.installed import InstalledModel
from server import worker
from server.settings import Settings


def test_models_of_one_encoder_share_its_weights_and_batches(
    settings: Settings, demo_model: InstalledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    closed: list[str] = []

    class Stage:
        def close(self) -> None:
            closed.append("stage")

    def load(model: InstalledModel, *_: Any) -> Encoders:
        loads.append(model.manifest.name)
        return Encoders(model, {}, Stage())  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "load_encoders", load)
    manifest = demo_model.manifest
    other_language_model = replace(demo_model, manifest=manifest.model_copy(update={"name": "other"}))
    stage = manifest.longnet_pool().model_copy(update={"slide_ngrids": 999})
    other_encoder = replace(demo_model, manifest=manifest.model_copy(update={"name": "third", "slide_stage": stage}))
    models = (demo_model, other_language_model, other_encoder)

    with contextlib.ExitStack() as loaded:
        encoders = worker.load_served(models, settings, "cpu", loaded)

    assert loads == ["demo", "third"]
    assert list(encoders) == ["demo", "other", "third"]
    assert encoders["other"].stage is encoders["demo"].stage
    assert encoders["other"].slide_turn is encoders["demo"].slide_turn
    assert encoders["other"].model is other_language_model, "an encoder id with a µm/px is made by its own manifest"
    assert encoder_id(other_language_model) == encoder_id(demo_model) != encoder_id(other_encoder)
    assert closed == ["stage", "stage"]
