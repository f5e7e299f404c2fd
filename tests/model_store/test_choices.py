from pathlib import Path

import pytest

from encoders.encoder_id import encoder_id
from model_store.choices import with_choices
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.packaged_models import open_or_install


@pytest.fixture
def model(tmp_path: Path) -> InstalledModel:
    return open_or_install(tmp_path, "demo")


def test_no_choice_changes_nothing(model: InstalledModel) -> None:
    assert with_choices(model) == model


@pytest.mark.parametrize("tile_dtype", ["float16", "bfloat16"])
def test_a_dtype_is_the_tile_encoders_alone(model: InstalledModel, tile_dtype: str) -> None:
    chosen = with_choices(model, tile_dtype).manifest
    assert chosen.first_input.tile_encoder.dtype == tile_dtype
    assert chosen.slide_stage == model.manifest.slide_stage
    assert chosen.llm == model.manifest.llm


def test_float8_keeps_the_dtype_of_what_stays_in_16_bits(model: InstalledModel) -> None:
    chosen = with_choices(with_choices(model, "bfloat16"), "float8").manifest.first_input.tile_encoder
    assert (chosen.dtype, chosen.matmul) == ("bfloat16", "float8")


def test_a_dtype_takes_float8_back(model: InstalledModel) -> None:
    assert with_choices(with_choices(model, "float8"), "float32") == model


def test_every_choice_has_an_encoder_id_of_its_own(model: InstalledModel) -> None:
    choices = [("", ""), ("bfloat16", ""), ("float8", ""), ("", "dct"), ("bfloat16", "dct")]
    assert len({encoder_id(with_choices(model, *choice)) for choice in choices}) == len(choices)


@pytest.mark.parametrize("choice", [("int4", ""), ("", "nearest"), ("FLOAT32", "")])
def test_an_unknown_word_is_refused_with_the_known_ones(model: InstalledModel, choice: tuple[str, str]) -> None:
    with pytest.raises(ModelError, match="choose one of"):
        with_choices(model, *choice)
