"""What a model was made for: kept, read back, and told from other tissue."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.familiarity import FAMILIARITY_FILE, fit, keep_statistics, read_statistics
from model_store.errors import ModelError
from model_store.installed import InstalledModel, open_model, verify_digests

WIDTH = 24


def slide(seed: int, *, shift: float = 0.0, width: int = WIDTH, tiles: int = 60) -> NDArray[np.float32]:
    """Features around a stain of its own; `shift` moves them to where no slide lies."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(0).normal(size=(6, width))
    features = rng.normal(size=(tiles, 6)) @ basis + rng.normal(size=(1, 6)) @ basis * 0.5
    return (features + rng.normal(0, 0.1, (tiles, width)) + shift).astype(np.float32)


def test_slides_like_those_of_the_statistics_are_familiar_and_others_are_not() -> None:
    statistics = fit([slide(seed) for seed in range(1, 25)])
    familiar = [statistics.measure(slide(seed)) for seed in range(100, 150)]
    other = [statistics.measure(slide(seed, shift=3.0)) for seed in range(200, 220)]

    assert sum(it.verdict == "familiar" for it in familiar) >= 49
    assert all(it.verdict == "unfamiliar" for it in other)
    assert max(it.distance for it in familiar) < min(it.distance for it in other)


def test_fewer_tiles_than_features_give_statistics_too() -> None:
    statistics = fit([slide(seed, width=192, tiles=5) for seed in range(1, 9)])

    assert np.isfinite(statistics.whitening).all()
    assert statistics.measure(slide(3, width=192)).distance < statistics.measure(slide(3, width=192, shift=9)).distance


def test_too_few_slides_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 8 slides"):
        fit([slide(seed) for seed in range(3)])


def test_statistics_are_kept_with_the_model_and_damage_is_found(demo_model: InstalledModel, tmp_path: Path) -> None:
    width = demo_model.manifest.first_input.tile_encoder.feature_dim
    shutil.copytree(demo_model.folder, tmp_path / demo_model.manifest.name)
    model = open_model(tmp_path, demo_model.manifest.name)
    made = fit([slide(seed, width=width) for seed in range(1, 13)])
    kept = keep_statistics(model, made)
    found = read_statistics(kept)

    verify_digests(kept)
    assert found is not None
    assert (found.slides, found.tiles, found.limit) == (12, 720, made.limit)
    assert found.measure(slide(50, width=width)) == made.measure(slide(50, width=width))

    keep_statistics(model, fit([slide(seed) for seed in range(1, 13)]))  # of another width
    with pytest.raises(ModelError, match="does not fit its manifest"):
        read_statistics(open_model(tmp_path, demo_model.manifest.name))
    (kept.folder / FAMILIARITY_FILE).write_bytes(b"no safetensors")
    with pytest.raises(ModelError, match="damaged"):
        read_statistics(kept)
