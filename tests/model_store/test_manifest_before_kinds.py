"""Models that were installed before there were kinds: read as they are, and unchanged to who has embeddings of them."""

import shutil
from pathlib import Path

import pytest

from encoders.encoder_id import encoder_id
from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, read_sums, write_digests
from model_store.installed import InstalledModel, open_model, verify_digests
from model_store.manifest import MANIFEST_FILE, Abilities, load_manifest, packaged_manifest, parse_manifest
from model_store.manifest_text import manifest_text
from model_store.packaged_models import PACKAGED

# As they lay in the repository and in installed folders.
BEFORE = Path(__file__).parent / "manifests_before_kinds"


@pytest.mark.parametrize("name", ["demo", "wsi-llava"])
def test_an_earlier_manifest_is_todays_composition(name: str) -> None:
    earlier = load_manifest(BEFORE / f"{name}.toml")

    # What a model can be asked is said since, and changes nothing that it does.
    assert earlier == packaged_manifest(name).model_copy(update={"abilities": Abilities()})
    assert parse_manifest(manifest_text(earlier)) == earlier, "written again, it is in today's tables"


def test_an_installed_model_with_its_earlier_manifest_opens_and_keeps_its_encoder_id(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(PACKAGED / "demo", folder)
    shutil.copyfile(BEFORE / "demo.toml", folder / MANIFEST_FILE)
    write_digests(folder, {**read_sums(folder), MANIFEST_FILE: file_digest(folder / MANIFEST_FILE)})

    model = open_model(tmp_path, "demo")

    verify_digests(model)
    # What the release before kinds gave, for the same weights.
    assert encoder_id(model) == encoder_id(open_model(PACKAGED, "demo")) == "6c21339a0a695174"


def test_the_published_model_keeps_its_encoder_ids() -> None:
    digests = {"tile_encoder/model.safetensors": "1" * 64, "slide_encoder/model.safetensors": "2" * 64}
    model = InstalledModel(Path(), packaged_manifest("wsi-llava"), digests)

    given = encoder_id(model), encoder_id(model, 0.25), encoder_id(model, None, "3" * 64)

    # By the code before kinds.
    assert given == ("5f7c0728efb855c8", "83eea82dfc63cd13", "cd70b8782d7e5fff")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("tile_px = 224", "tile_px = 0", "inputs.tiles.tiling.tile_px"),
        ("slide_tokens = 32", 'slide_tokens = "many"', "slide_stage.slide_tokens"),
        ("projector_width = 256", "", "projector.width"),
        ('prompt_template = "llava_v1"', 'prompt_template = "v0"', "prompt.template"),
        ('placeholder = "<image>"', 'placeholder = "<slide>"', "slide_stage"),
        ('architecture = "longnet"', 'architecture = "mamba"', "slide_stage"),
    ],
)
def test_a_wrong_field_of_an_earlier_manifest_is_named_as_it_is_called_now(old: str, new: str, field: str) -> None:
    text = (BEFORE / "demo.toml").read_text()
    assert old in text

    with pytest.raises(ModelError, match=f"wrong at '{field}'"):
        parse_manifest(text.replace(old, new))
