"""API and worker serve the same model under the same encoder id, whatever the operator chose."""

import pytest
from pydantic import ValidationError

from encoders.encoder_id import encoder_id
from model_store.errors import ModelError
from server.app import build_parts
from server.served_models import open_served_models
from server.settings import ModelAddress, Settings


def test_without_choices_the_model_is_served_as_installed(settings: Settings) -> None:
    manifest = open_served_models(settings)[0].manifest

    assert (manifest.name, manifest.first_input.tile_encoder.matmul, manifest.first_input.tiling.reduction) == (
        "demo",
        "dtype",
        "area",
    )


@pytest.mark.parametrize("choice", [{"tile_dtype": "bfloat16"}, {"tile_dtype": "float8"}, {"tile_reduction": "dct"}])
async def test_a_choice_is_part_of_the_id_that_the_api_gives_to_slides(
    settings: Settings, choice: dict[str, str]
) -> None:
    chosen = settings.model_copy(update=choice)
    (model,) = open_served_models(chosen)
    parts = build_parts(chosen, [model])

    record = parts.slides.new_record("default", "ab" * 32, "x.svs", 5)

    assert record.encoder_id == encoder_id(model) != encoder_id(open_served_models(settings)[0])
    await parts.models.default.language_model.aclose()
    await parts.redis.aclose()


def test_several_models_have_an_address_each_and_one_has_that_of_the_single_vllm() -> None:
    one, two = Settings(model="a", llm_url="http://x"), Settings(models="a=http://x:1, b=https://y", worker_models="b")

    assert (
        one.served_models == Settings(models="a", llm_url="http://x").served_models == (ModelAddress("a", "http://x"),)
    )
    assert two.served_models == (ModelAddress("a", "http://x:1"), ModelAddress("b", "https://y"))
    assert (two.default_model, two.llm_model, two.encoded_models, one.encoded_models) == ("a", "a", ("b",), ("a",))
    assert Settings(models="a=http://x:1,b=http://y", model="b").llm_model == "b"


@pytest.mark.parametrize("models", ["a=", "a=ftp://x", "A=http://x", "a,,b", "a=http://x,a=http://y", "../a"])
def test_models_that_cannot_be_read_are_refused_at_start(models: str) -> None:
    with pytest.raises(ValidationError, match="models"):
        Settings(models=models)


def test_a_worker_of_a_model_that_is_not_served_does_not_start() -> None:
    with pytest.raises(ModelError, match="EYEPIECE_WORKER_MODELS"):
        _ = Settings(models="a,b", worker_models="c").encoded_models


@pytest.mark.parametrize("choice", [{"tile_dtype": "int8"}, {"tile_reduction": "nearest"}, {"slides_at_once": -1}])
def test_what_cannot_be_chosen_is_refused_at_start(choice: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**choice)  # type: ignore[arg-type]
