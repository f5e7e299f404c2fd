"""A model that was made here is written as it is installed: same bytes from the same numbers, whole or not there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from untrained_model import UNTRAINED_MANIFEST, untrained_manifest, untrained_model, untrained_tokenizer

from encoders.expected_shapes import expected_shapes
from model_store.convert.llava_config import served_shapes
from model_store.errors import ModelError
from model_store.installed import InstalledModel, verify_digests
from training.seeded_weights import seeded_weights
from training.write_model import LlamaShape, llava_config, write_model

Arguments = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    return untrained_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def arguments() -> Arguments:
    """What `write_model` takes after the folder."""
    manifest, tokenizer, rng = untrained_manifest(), untrained_tokenizer(), np.random.default_rng(0)
    llama = LlamaShape(tokenizer.get_vocab_size() - 1, hidden=64, layers=1, heads=2, intermediate=96, rope_theta=5e5)
    shapes = expected_shapes(manifest)
    return {
        "manifest_text": UNTRAINED_MANIFEST,
        "encoders": {file: seeded_weights(tensors, rng) for file, tensors in shapes.items()},
        "language_model": seeded_weights(served_shapes(llava_config(llama, manifest)), rng),
        "tokenizer": tokenizer,
        "llama": llama,
    }


def test_it_is_a_complete_and_verified_model(written: InstalledModel) -> None:
    verify_digests(written)

    assert (written.folder / "manifest.toml").read_text() == UNTRAINED_MANIFEST
    assert [path.name for path in written.folder.parent.iterdir()] == ["demo"], "nothing is left beside it"
    assert set(written.digests) == {
        "manifest.toml",
        "tile_encoder/model.safetensors",
        "slide_encoder/model.safetensors",
        "llm/model.safetensors",
        "llm/config.json",
        "llm/generation_config.json",
        "llm/tokenizer.json",
        "llm/tokenizer_config.json",
        "llm/chat_template.jinja",
    }


def test_the_same_numbers_give_the_same_bytes_and_others_others(written: InstalledModel, tmp_path: Path) -> None:
    again = untrained_model(tmp_path / "again")
    other = untrained_model(tmp_path / "other", seed=1)

    assert again.digests == written.digests
    changed = {path for path in written.digests if other.digests[path] != written.digests[path]}
    assert changed == {path for path in written.digests if path.endswith(".safetensors")}


def test_weights_are_the_given_ones_in_fp16(arguments: Arguments, tmp_path: Path) -> None:
    model = write_model(tmp_path / "demo", **arguments)

    given = {**arguments["encoders"], "llm/model.safetensors": arguments["language_model"]}
    for file, weights in given.items():
        stored = load_file(model.folder / file)
        assert stored.keys() == weights.keys()
        assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
        assert all(np.array_equal(stored[name], array.astype(np.float16)) for name, array in weights.items())


def test_the_config_says_what_was_given(arguments: Arguments, tmp_path: Path) -> None:
    llama = arguments["llama"]

    config = json.loads((write_model(tmp_path / "demo", **arguments).llm_folder / "config.json").read_text())

    text = config["text_config"]
    assert (text["vocab_size"], text["hidden_size"], text["intermediate_size"]) == (llama.vocabulary, 64, 96)
    assert (text["num_hidden_layers"], text["num_attention_heads"], text["num_key_value_heads"]) == (1, 2, 2)
    assert (text["rope_theta"], text["rms_norm_eps"], text["max_position_embeddings"]) == (5e5, 1e-5, 2048)
    assert (config["slide_token_width"], config["mm_hidden_size"], config["max_slide_tokens"]) == (96, 128, 32)
    assert config["dtype"] == text["dtype"] == "float32", "the manifest's, whatever the file holds"


def test_the_placeholder_id_lies_just_outside_the_vocabulary(written: InstalledModel) -> None:
    config = json.loads((written.llm_folder / "config.json").read_text())
    tokenizer = json.loads((written.llm_folder / "tokenizer.json").read_text())
    placeholder = next(token for token in tokenizer["added_tokens"] if token["content"] == "<image>")

    assert placeholder["id"] == config["image_token_index"] == config["text_config"]["vocab_size"]
    assert placeholder["special"]


def test_every_file_can_be_read_by_another_user(written: InstalledModel) -> None:
    for path in written.digests:
        assert (written.folder / path).stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("file", ["tile_encoder/model.safetensors", "slide_encoder/model.safetensors", None])
@pytest.mark.parametrize("fault", ["lacks", "has a tensor", "has the shape", "fp16"])
def test_weights_that_do_not_fit_are_refused_and_the_earlier_model_stays(
    arguments: Arguments, tmp_path: Path, file: str | None, fault: str
) -> None:
    earlier = write_model(tmp_path / "demo", **arguments)
    weights = arguments["language_model"] if file is None else arguments["encoders"][file]
    name, array = next(iter(weights.items()))
    spoiled = {
        "lacks": {key: value for key, value in weights.items() if key != name},
        "has a tensor": {**weights, "more": array},
        "has the shape": {**weights, name: array[:-1] if len(array) > 1 else array[..., :-1]},
        "fp16": {**weights, name: np.full_like(array, 1e6)},
    }[fault]
    wrong = {"language_model": spoiled} if file is None else {"encoders": {**arguments["encoders"], file: spoiled}}

    with pytest.raises(ModelError, match=fault):
        write_model(tmp_path / "demo", **{**arguments, **wrong})

    verify_digests(earlier)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_tokenizer_of_another_size_is_refused(arguments: Arguments, tmp_path: Path, difference: int) -> None:
    llama = LlamaShape(arguments["llama"].vocabulary + difference, hidden=64, layers=1, heads=2, intermediate=96)

    with pytest.raises(ModelError, match="do not belong together"):
        write_model(tmp_path / "demo", **{**arguments, "llama": llama})


def test_a_folder_under_another_name_is_refused_untouched(arguments: Arguments, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="of 'demo', the folder is called 'other'"):
        write_model(tmp_path / "other", **arguments)

    assert list(tmp_path.iterdir()) == []
