"""The packaged descriptions of published models: their shapes, and what they admit not to know."""

import json
import subprocess

import pytest
from vllm_server import VLLM_PYTHON

from encoders.expected_shapes import expected_shapes
from model_store.contracts.tile_encoder import TimmTileEncoder
from model_store.convert.llava_config import LlavaConfig, ServedConfig, served_shapes
from model_store.convert.tensor_names import LLAVA
from model_store.convert.tile_encoder_tables import tile_encoder_tables
from model_store.errors import ModelError
from model_store.manifest import packaged_manifest, packaged_manifest_text, parse_manifest

PUBLISHED = packaged_manifest("wsi-llava")
# Llama 2 7B, the published projector and CLIP's width: the reference's own config.
SEVEN_B = LlavaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    mm_hidden_size=1024,
    mm_projector_type="mlp2x_gelu",
)
# Qwen2.5-7B, and SlideChat's projector.
QWEN_SEVEN_B = ServedConfig(
    family="qwen2",
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    mm_hidden_size=512,
    mm_projector_type="mlp2x_gelu",
)

REFERENCE = """
import json, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
kinds = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen2": (Qwen2ForCausalLM, Qwen2Config)}
with torch.device("meta"):
    models = [(kind := kinds[config.pop("family")])[0](kind[1](**config)) for config in json.load(sys.stdin)]
shapes = [{name: list(tensor.shape) for name, tensor in model.state_dict().items()} for model in models]
json.dump(shapes, sys.stdout)
"""


def parameters(shapes: dict[str, tuple[int, ...]]) -> int:
    total = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        total += count
    return total


def with_tile_encoder(spec: TimmTileEncoder) -> dict[str, tuple[int, ...]]:
    given = PUBLISHED.first_input.model_copy(update={"tile_encoder": spec})
    return expected_shapes(PUBLISHED.model_copy(update={"inputs": {"tiles": given}}))[spec.weights]


def test_the_published_encoders_have_the_published_numbers_of_tensors_and_parameters() -> None:
    shapes = expected_shapes(PUBLISHED)

    tiles, slide = shapes["tile_encoder/model.safetensors"], shapes["slide_encoder/model.safetensors"]
    assert (len(tiles), parameters(tiles)) == (566, 1_134_953_984)
    assert (len(slide), parameters(slide)) == (247, 86_330_880)


@pytest.mark.parametrize("name", tile_encoder_tables())
def test_every_tile_encoder_table_builds_with_its_published_size(name: str) -> None:
    table = tile_encoder_tables()[name]
    shapes = with_tile_encoder(table.tile_encoder)

    assert parameters(shapes) == table.parameters
    assert shapes["norm.weight"] == (table.tile_encoder.feature_dim,)
    assert table.tile_encoder.input_px <= table.tile_px


def test_the_published_model_uses_the_published_tile_encoder_as_the_table_has_it() -> None:
    assert PUBLISHED.first_input.tile_encoder == tile_encoder_tables()["prov-gigapath"].tile_encoder


def test_the_widths_of_the_chain_agree() -> None:
    assert PUBLISHED.slide_stage.in_chans == PUBLISHED.first_input.tile_encoder.feature_dim
    assert PUBLISHED.slide_stage.embed_dim < PUBLISHED.projector.width == SEVEN_B.mm_hidden_size


def test_the_projector_has_the_published_size() -> None:
    projector = {name: shape for name, shape in served_shapes(SEVEN_B).items() if "mm_projector" in name}

    assert parameters(projector) == 20_979_712


@pytest.mark.skipif(not VLLM_PYTHON.exists(), reason="vLLM's environment .venv-vllm is not built")
def test_the_seven_billion_skeleton_has_the_names_and_shapes_of_transformers() -> None:
    configs = [*(SEVEN_B.model_copy(update={"num_key_value_heads": heads}) for heads in (32, 8)), QWEN_SEVEN_B]
    asked = json.dumps([config.model_dump(mode="json") for config in configs])
    run = subprocess.run([VLLM_PYTHON, "-c", REFERENCE], input=asked, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

    for config, shapes in zip(configs, json.loads(run.stdout), strict=True):
        ours = served_shapes(config)
        theirs = {name: tuple(shape) for name, shape in shapes.items()}
        assert {name: shape for name, shape in ours.items() if "mm_projector" not in name} == theirs


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_every_name_of_the_seven_billion_skeleton_maps_to_itself(prefix: str) -> None:
    for name in served_shapes(SEVEN_B):
        assert LLAVA.served_name(f"{prefix}{name}") == name


@pytest.mark.parametrize(
    ("published", "served"),
    [
        ("model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", None),
        ("base_model.model.model.vision_tower.vision_tower.vision_model.post_layernorm.bias", None),
        ("model.layers.31.self_attn.rotary_emb.inv_freq", None),
        ("model.model.mm_projector.0.weight", "model.mm_projector.0.weight"),
        ("model.lm_head.weight", "lm_head.weight"),
        ("model.image_newline", "model.image_newline"),
        ("model.vision_resampler.x", "model.vision_resampler.x"),
    ],
)
def test_what_the_reference_may_save_beside_it_is_mapped_or_dropped_by_rule(published: str, served: str | None) -> None:
    assert LLAVA.served_name(published) == served


def test_what_is_not_known_publicly_is_said_and_not_left_empty() -> None:
    assert PUBLISHED.downloads is not None
    for download in PUBLISHED.downloads.values():
        assert (download.revision, download.digests, download.sha256) == ("unrecorded", "unrecorded", {})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('revision = "unrecorded"', 'revision = ""'),
        ('revision = "unrecorded"', 'revision = "main"'),
        ('digests = "unrecorded"', 'digests = "published"'),
        ('digests = "unrecorded"', ""),
        ('digests = "unrecorded"', 'digests = "recorded"\nsha256 = { "pytorch_model.bin" = "" }'),
        ('digests = "unrecorded"', f'digests = "unrecorded"\nsha256 = {{ "pytorch_model.bin" = "{"a" * 64}" }}'),
    ],
)
def test_an_empty_or_contradictory_pin_is_refused(old: str, new: str) -> None:
    text = packaged_manifest_text("wsi-llava")
    assert old in text

    with pytest.raises(ModelError, match=r"wrong at 'downloads\.tile_encoder"):
        parse_manifest(text.replace(old, new, 1))
