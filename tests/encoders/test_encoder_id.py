import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from encoders.encoder_id import encoder_id
from model_store.installed import InstalledModel


def changed(model: InstalledModel, part: str, **fields: Any) -> InstalledModel:
    if part in ("tiling", "tile_encoder"):
        return replace(model, manifest=model.manifest.with_inputs(**{part: fields}))
    described = getattr(model.manifest, part).model_copy(update=fields)
    return replace(model, manifest=model.manifest.model_copy(update={part: described}))


def test_it_is_sixteen_hex_digits_and_the_same_every_time(demo_model: InstalledModel) -> None:
    first = encoder_id(demo_model)

    assert len(first) == 16
    assert set(first) <= set("0123456789abcdef")
    assert encoder_id(demo_model) == first


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("tiling", "target_mpp", 0.25),
        ("tiling", "tile_px", 224),
        ("tiling", "min_tissue_fraction", 0.2),
        ("tile_encoder", "timm_args", {"depth": 3, "num_classes": 0}),
        ("tile_encoder", "input_px", 256),
        ("tile_encoder", "mean", (0.5, 0.5, 0.5)),
        ("tile_encoder", "dtype", "bfloat16"),
        ("slide_stage", "max_wsi_size", 250_000),
        ("slide_stage", "tile_stride_px_level", "tile_px"),
        ("slide_stage", "output", "wsi_llava_encoder_out_norm"),
        ("slide_stage", "output", "wsi_llava_last_state"),
        ("slide_stage", "slide_tokens", 64),
        ("slide_stage", "dtype", "float16"),
    ],
)
def test_whatever_changes_the_embedding_changes_the_id(
    demo_model: InstalledModel, part: str, field: str, value: object
) -> None:
    assert encoder_id(changed(demo_model, part, **{field: value})) != encoder_id(demo_model)


@pytest.mark.parametrize("weights", ["tile_encoder/model.safetensors", "slide_encoder/model.safetensors"])
def test_other_weights_are_another_encoder(demo_model: InstalledModel, weights: str) -> None:
    other = replace(demo_model, digests={**demo_model.digests, weights: "0" * 64})

    assert encoder_id(other) != encoder_id(demo_model)


def test_what_does_not_change_the_embedding_does_not_change_the_id(demo_model: InstalledModel) -> None:
    same = changed(demo_model, "tile_encoder", batch_tiles=7)
    same = changed(same, "llm", max_model_len=64)

    assert encoder_id(same) == encoder_id(demo_model)


def test_each_override_is_its_own_encoder(demo_model: InstalledModel) -> None:
    ids = {encoder_id(demo_model), encoder_id(demo_model, 0.5), encoder_id(demo_model, 0.25)}

    assert len(ids) == 3


def test_given_features_are_never_taken_for_the_slides_own(demo_model: InstalledModel) -> None:
    ids = {encoder_id(demo_model), encoder_id(demo_model, None, "0" * 64), encoder_id(demo_model, None, "1" * 64)}

    assert len(ids) == 3


def test_naming_an_encoder_and_reading_its_files_loads_no_torch() -> None:
    script = "import sys, encoders.encoder_id, encoders.embedding_file, encoders.features_file; print(*sys.modules)"

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert {"torch", "cv2", "openslide"}.isdisjoint(result.stdout.split())
