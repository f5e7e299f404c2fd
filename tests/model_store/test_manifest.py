"""Manifests are read strictly: what is not understood is an error that names the field."""

import tomllib
from pathlib import Path

import pytest
from untrained_model import UNTRAINED_MANIFEST

from model_store.errors import ModelError
from model_store.manifest import Manifest, load_manifest, packaged_manifest, packaged_names, parse_manifest


def test_the_packaged_demo_says_what_it_is() -> None:
    demo = packaged_manifest("demo")

    assert demo.name == "demo"
    assert demo.slide_stage.in_chans == demo.first_input.tile_encoder.feature_dim
    assert demo.slide_stage.embed_dim < demo.projector.width, "the demo must exercise the padding"


def test_manifests_are_found_alone_and_with_their_model() -> None:
    assert packaged_names() == ["demo", "demo-hierarchical", "mllm-hwsi", "slidechat", "wsi-llava"]


def test_the_demo_notice_is_one_sentence_that_warns() -> None:
    notice = packaged_manifest("demo").notice

    assert notice.count(".") == 1
    for words in ("Research use only", "not a diagnosis", "synthetic tissue alone", "nothing of real slides"):
        assert words in notice


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no model 'nope'; known are: .*demo"):
        packaged_manifest("nope")


@pytest.mark.parametrize("name", ["../demo", "demo.toml", ""])
def test_a_name_never_becomes_a_path(name: str) -> None:
    with pytest.raises(ModelError, match="There is no model"):
        packaged_manifest(name)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("tile_px = 256", "tile_px = 0", "inputs.tiles.tiling.tile_px"),
        ("target_mpp = 0.5", "target_mpp = nan", "inputs.tiles.tiling.target_mpp"),
        ('order = "raster"', 'order = "random"', "inputs.tiles.tiling.order"),
        ("slide_tokens = 32", "slide_tokens = 32\npooling = 1", "slide_stage.pooling"),
        ('output = "wsi_llava_last_state_norm"', 'output = "last_state"', "slide_stage.output"),
        ('output = "wsi_llava_last_state_norm"', 'output = "cls"', "slide_stage"),
        ("licence = ", "license = ", "licence"),
        ('weights = "tile_encoder/', 'weights = "../tile_encoder/', "inputs.tiles.tile_encoder.weights"),
        ('name = "demo"', 'name = "../demo"', "name"),
        ("max_tokens = 48", "max_tokens = 48\ntop_p = 0.0", "llm.generation.top_p"),
    ],
)
def test_a_wrong_field_is_named(old: str, new: str, field: str) -> None:
    assert old in UNTRAINED_MANIFEST

    with pytest.raises(ModelError, match=f"wrong at '{field}'"):
        parse_manifest(UNTRAINED_MANIFEST.replace(old, new, 1))


@pytest.mark.parametrize(
    ("kind", "field", "known"),
    [
        ("longnet-pool", "slide_stage", "'longnet-pool', 'longnet-all', 'mean', 'none'"),
        ("mlp", "projector", "'mlp', 'none'"),
        ("llava", "prompt", "'llava', 'chatml'"),
        ("timm", "inputs.tiles.tile_encoder", "'timm', 'conch'"),
    ],
)
def test_an_unknown_kind_is_refused_with_the_known_ones(kind: str, field: str, known: str) -> None:
    text = UNTRAINED_MANIFEST.replace(f'kind = "{kind}"', 'kind = "perceiver"')

    with pytest.raises(ModelError, match=f"wrong at '{field}': there is no kind 'perceiver'; known are {known}"):
        parse_manifest(text)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("in_chans = 192", "in_chans = 191", "in_chans is 191, the tile encoder's feature_dim 192"),
        ("width = 128", "width = 95", "the rows are 96 wide, more than the projector's 95"),
        ("max_model_len = 2048", "max_model_len = 32", "32 rows leaves no room in a max_model_len of 32"),
        ("[inputs.tiles.tiling]", "[inputs]\n[nothing.tiles.tiling]", "inputs"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(old: str, new: str, reason: str) -> None:
    assert old in UNTRAINED_MANIFEST

    with pytest.raises(ModelError, match=reason):
        parse_manifest(UNTRAINED_MANIFEST.replace(old, new, 1))


def test_a_kind_that_takes_one_input_refuses_two() -> None:
    tables = tomllib.loads(UNTRAINED_MANIFEST)
    tables["inputs"]["more"] = tables["inputs"]["tiles"]

    with pytest.raises(ValueError, match="'longnet-pool' takes one input, not 2"):
        Manifest.model_validate(tables)


@pytest.mark.parametrize(
    ("output", "rows"), [("cls", 1), ("global_pool", 1), ("all_layer_cls", 3), ("all_layer_global_pool", 3)]
)
def test_a_vector_output_has_as_many_slide_tokens_as_it_has_vectors(output: str, rows: int) -> None:
    text = UNTRAINED_MANIFEST.replace('output = "wsi_llava_last_state_norm"', f'output = "{output}"')

    with pytest.raises(ModelError, match=f"output '{output}' gives {rows} slide_tokens"):
        parse_manifest(text)

    manifest = parse_manifest(text.replace("slide_tokens = 32", f"slide_tokens = {rows}"))
    assert (manifest.slide_stage.output, manifest.slide_stage.slide_tokens) == (output, rows)


def test_text_that_is_not_toml_is_refused() -> None:
    with pytest.raises(ModelError, match="not valid TOML"):
        parse_manifest("name = ")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_manifest_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "manifest.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelError, match="no readable manifest"):
        load_manifest(path)


def test_a_manifest_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        packaged_manifest("demo").first_input.tiling.tile_px = 1  # type: ignore[misc]
