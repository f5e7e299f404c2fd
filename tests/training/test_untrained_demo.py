"""The untrained demo model: same bytes from the same seed, whole or not there, and loadable by those who serve it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from encoders.slide_encoder.encode import SlideEncoder
from encoders.tile_encoder.encode import TileEncoder
from model_store.installed import InstalledModel, verify_digests
from training.untrained_demo import make_untrained_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    return make_untrained_demo(tmp_path_factory.mktemp("models"))


def test_it_is_a_complete_and_verified_model(demo: InstalledModel) -> None:
    verify_digests(demo)

    assert demo.manifest.source.revision == "seed-0"
    assert [path.name for path in demo.folder.parent.iterdir()] == ["demo"], "nothing is left beside it"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(demo: InstalledModel, tmp_path: Path) -> None:
    again = make_untrained_demo(tmp_path / "again")
    other = make_untrained_demo(tmp_path / "other", seed=1)

    assert again.digests == demo.digests
    changed = {path for path in demo.digests if other.digests[path] != demo.digests[path]}
    assert changed == {"manifest.toml", *(path for path in demo.digests if path.endswith(".safetensors"))}


def test_a_complete_one_is_kept_and_a_changed_seed_replaces_it(tmp_path: Path) -> None:
    first = make_untrained_demo(tmp_path)
    os.utime(first.tile_encoder_weights, (1, 1))

    kept = make_untrained_demo(tmp_path)
    assert kept.tile_encoder_weights.stat().st_mtime == 1

    replaced = make_untrained_demo(tmp_path, seed=5)
    assert replaced.manifest.source.revision == "seed-5"
    verify_digests(replaced)


def test_an_incomplete_one_is_made_anew(tmp_path: Path) -> None:
    (make_untrained_demo(tmp_path).llm_folder / "config.json").unlink()

    verify_digests(make_untrained_demo(tmp_path))


def test_every_file_can_be_read_by_another_user(demo: InstalledModel) -> None:
    for path in demo.digests:
        assert (demo.folder / path).stat().st_mode & 0o444 == 0o444


def test_the_placeholder_id_lies_just_outside_the_vocabulary(demo: InstalledModel) -> None:
    config = json.loads((demo.llm_folder / "config.json").read_text())
    tokenizer = json.loads((demo.llm_folder / "tokenizer.json").read_text())
    placeholder = next(token for token in tokenizer["added_tokens"] if token["content"] == "<image>")

    assert placeholder["id"] == config["image_token_index"] == config["text_config"]["vocab_size"]
    assert placeholder["special"]


def test_only_whole_words_can_be_answered(demo: InstalledModel) -> None:
    output = load_file(demo.llm_folder / "model.safetensors")["lm_head.weight"]
    vocabulary = json.loads((demo.llm_folder / "tokenizer.json").read_text())["model"]["vocab"]
    spoken = {token for token, number in vocabulary.items() if np.any(output[number])}

    assert len(spoken) > 100
    assert all(token.startswith("Ġ") and token[1:].isalpha() for token in spoken)


def test_both_encoders_load_it_strictly_and_tell_tiles_apart(demo: InstalledModel) -> None:
    spec = demo.manifest.tile_encoder
    tiles = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)

    SlideEncoder(demo.manifest.slide_encoder, demo.slide_encoder_weights, torch.device("cpu"))
    features = TileEncoder(spec, demo.tile_encoder_weights, torch.device("cpu")).encode(tiles)

    assert features.shape == (2, spec.feature_dim)
    assert np.abs(features[0] - features[1]).max() > 0.01
