"""The slide encoder against outputs of the published code; make_golden.py says how those were made."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from encoders.errors import NoTissue
from encoders.slide_encoder import dilated_attention, longnet
from encoders.slide_encoder.longnet import LongNetViT
from encoders.slide_encoder.outputs import OUTPUTS, SlideStates
from encoders.slide_encoder.positions import CoordinatesOutOfRange

GOLDEN = Path(__file__).parent / "golden" / "longnet.safetensors"
PUBLISHED = {"in_chans": 1536, "embed_dim": 768, "depth": 12, "num_heads": 16}
TOY = {"in_chans": 8, "embed_dim": 48, "depth": 2, "slide_ngrids": 64}

with safe_open(GOLDEN, framework="pt") as file:
    CASES: dict[str, dict[str, int]] = json.loads(file.metadata()["cases"])


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(GOLDEN, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - not a mapping


def build(golden: dict[str, Tensor], *, num_heads: int = 16, **sizes: int) -> LongNetViT:
    model = LongNetViT(**TOY, num_heads=num_heads, **sizes)
    weights = {key.removeprefix("weights."): golden[key].float() for key in golden if key.startswith("weights.")}
    model.load_state_dict(weights, strict=True)
    return model.eval().requires_grad_(False)


def slide(golden: dict[str, Tensor], tiles: int) -> tuple[Tensor, Tensor]:
    return golden["tile_features"][:tiles].float(), golden["coords"][:tiles]


def run_case(golden: dict[str, Tensor], name: str) -> tuple[LongNetViT, SlideStates]:
    case = dict(CASES[name])
    tiles = case.pop("tiles")
    model = build(golden, **case)
    return model, model(*slide(golden, tiles), keep="all")


def encoder_out_error(golden: dict[str, Tensor], name: str, states: SlideStates) -> float:
    kept = states.encoder_out.detach()[golden[f"{name}.rows"]]
    return float((kept - golden[f"{name}.encoder_out"]).abs().max())


@pytest.mark.parametrize("name", CASES)
def test_states_equal_the_published_code(golden: dict[str, Tensor], name: str) -> None:
    _, states = run_case(golden, name)

    rows = golden[f"{name}.rows"]
    kept = torch.stack([state[rows] for state in states.states])
    torch.testing.assert_close(kept[0], golden[f"{name}.states"][0], atol=1e-6, rtol=0)
    torch.testing.assert_close(kept, golden[f"{name}.states"], atol=5e-5, rtol=0)
    torch.testing.assert_close(states.encoder_out[rows], golden[f"{name}.encoder_out"], atol=1e-5, rtol=0)
    means = torch.stack([*states.states, states.encoder_out]).mean(dim=1)
    torch.testing.assert_close(means, golden[f"{name}.means"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_the_published_code(golden: dict[str, Tensor], name: str) -> None:
    model, states = run_case(golden, name)

    for output in ("cls", "all_layer_cls", "global_pool", "all_layer_global_pool"):
        value = OUTPUTS[output](states, model.norm)
        torch.testing.assert_close(value, golden[f"{name}.{output}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["heads16_tiles130", "heads12_tiles1025", "wsi2000_heads16"])
def test_the_training_path_equals_the_published_code(golden: dict[str, Tensor], name: str) -> None:
    case = dict(CASES[name])
    tiles = case.pop("tiles")
    model = build(golden, **case).requires_grad_(True)

    states = model(*slide(golden, tiles))

    assert encoder_out_error(golden, name, states) < 1e-5


# What a rewrite gets wrong, and how far off it must be for the comparison above to be worth anything.


def test_masking_padded_keys_would_be_noticed(golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    spans = dilated_attention.spans
    monkeypatch.setattr(
        dilated_attention, "spans", lambda *given: [replace(span, missing_keys=0) for span in spans(*given)]
    )

    _, states = run_case(golden, "heads16_tiles1025")

    assert encoder_out_error(golden, "heads16_tiles1025", states) > 0.1


def test_padding_before_the_projection_would_be_noticed(
    golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = longnet.DilatedSelfAttention._project

    def with_biased_padding(self: longnet.DilatedSelfAttention, x: Tensor, norm: torch.nn.Module) -> list[Tensor]:
        projected = project(self, x, norm)
        for tensor, projection in zip(projected, (self.q_proj, self.k_proj, self.v_proj), strict=True):
            tensor[len(x) :] = projection.bias.view(self.num_heads, -1)
        return list(projected)

    monkeypatch.setattr(longnet.DilatedSelfAttention, "_project", with_biased_padding)

    _, states = run_case(golden, "heads16_tiles130")

    assert encoder_out_error(golden, "heads16_tiles130", states) > 1e-3


def test_equal_branch_weights_would_be_noticed(golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = dilated_attention.attention_with_lse

    def without_lse(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = kernel(query, key, value)
        return out, torch.ones_like(lse)

    monkeypatch.setattr(dilated_attention, "attention_with_lse", without_lse)

    _, states = run_case(golden, "heads16_tiles130")

    assert encoder_out_error(golden, "heads16_tiles130", states) > 0.1


def test_swapped_axes_would_be_noticed(golden: dict[str, Tensor]) -> None:
    features, coords = slide(golden, 130)

    states = build(golden)(features, coords.flip(1))

    assert encoder_out_error(golden, "heads16_tiles130", states) > 0.1


@pytest.mark.parametrize("swapped", [{"max_wsi_size": 2000}, {"num_heads": 12}])
def test_another_configuration_would_be_noticed(golden: dict[str, Tensor], swapped: dict[str, int]) -> None:
    states = build(golden, **swapped)(*slide(golden, 1501))

    assert encoder_out_error(golden, "heads16_tiles1501", states) > 0.1


def test_tile_order_matters(golden: dict[str, Tensor]) -> None:
    features, coords = slide(golden, 130)

    states = build(golden)(features.flip(0), coords.flip(0))

    assert not torch.allclose(states.encoder_out[0], golden["heads16_tiles130.encoder_out"][0], atol=1e-3)


# The interface.


def test_the_published_model_has_247_tensors_and_86330880_parameters() -> None:
    with torch.device("meta"):
        model = LongNetViT(**PUBLISHED)

    assert len(model.state_dict()) == 247
    assert sum(parameter.numel() for parameter in model.parameters()) == 86_330_880


def test_tensor_names_are_the_published_ones_in_every_layer(golden: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        model = LongNetViT(**PUBLISHED)

    # The golden weights were loaded strictly by the published code, two layers deep.
    per_layer = Counter(re.sub(r"layers\.\d+", "layers.#", name) for name in model.state_dict())
    published = {re.sub(r"layers\.\d+", "layers.#", key) for key in golden if key.startswith("weights.")}
    assert {f"weights.{name}" for name in per_layer} == published
    assert all(count == (12 if "#" in name else 1) for name, count in per_layer.items())


@pytest.mark.parametrize("spoil", ["missing", "unexpected"])
def test_a_strict_load_names_the_tensor_that_does_not_fit(golden: dict[str, Tensor], spoil: str) -> None:
    model = build(golden)
    weights = model.state_dict()
    name = "encoder.layers.1.ffn.fc1.bias" if spoil == "missing" else "decoder.weight"
    weights.pop(name, None) if spoil == "missing" else weights.update({name: torch.zeros(1)})

    with pytest.raises(RuntimeError, match=name):
        model.load_state_dict(weights, strict=True)


def test_a_model_made_on_the_meta_device_runs_once_weights_are_assigned(golden: dict[str, Tensor]) -> None:
    loaded = build(golden)
    with torch.device("meta"):
        model = LongNetViT(**TOY, num_heads=16)

    model.load_state_dict(loaded.state_dict(), strict=True, assign=True)

    with torch.inference_mode():
        states = model(*slide(golden, 130))
    assert encoder_out_error(golden, "heads16_tiles130", states) < 1e-5


@pytest.mark.parametrize("inference", [True, False], ids=["in_place", "for_autograd"])
def test_keeping_the_last_state_alone_gives_the_same_last_state(golden: dict[str, Tensor], inference: bool) -> None:
    model = build(golden)

    with torch.inference_mode(inference):
        last, every = model(*slide(golden, 130)), model(*slide(golden, 130), keep="all")

    assert (len(last.states), len(every.states)) == (1, 3)
    assert torch.equal(last.states[-1], every.states[-1])
    assert torch.equal(last.encoder_out, every.encoder_out)
    rows = golden["heads16_tiles130.rows"]
    for kept, published in zip(every.states, golden["heads16_tiles130.states"], strict=True):
        torch.testing.assert_close(kept[rows], published, atol=5e-5, rtol=0)


def test_the_norms_have_their_published_epsilons() -> None:
    with torch.device("meta"):
        model = LongNetViT(**PUBLISHED)

    epsilons = {name: module.eps for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    assert epsilons.pop("norm") == 1e-6
    assert len(epsilons) == 12 * 4 + 1
    assert set(epsilons.values()) == {1e-5}


@pytest.mark.parametrize("per_call", [True, False])
def test_another_tile_stride_needs_no_other_model(golden: dict[str, Tensor], per_call: bool) -> None:
    features, coords = slide(golden, 130)
    model = build(golden)

    if per_call:
        states = model(features, coords * 2, tile_size=512)
    else:
        model.tile_size = 512
        states = model(features, coords * 2)

    assert encoder_out_error(golden, "heads16_tiles130", states) < 1e-5


def test_no_tiles_is_an_error(golden: dict[str, Tensor]) -> None:
    with pytest.raises(NoTissue, match="at least one"):
        build(golden)(torch.zeros(0, 8), torch.zeros(0, 2))


def test_a_tile_outside_the_grid_is_an_error(golden: dict[str, Tensor]) -> None:
    features, coords = slide(golden, 7)

    with pytest.raises(CoordinatesOutOfRange, match="7 of 7 tiles"):
        build(golden)(features, coords + 64 * 256)


@pytest.mark.parametrize(
    ("features", "coords", "named"),
    [((1, 7, 8), (7, 2), "features"), ((7, 9), (7, 2), "features"), ((7, 8), (6, 2), "Coord"), ((7, 8), (7,), "Coord")],
)
def test_wrong_shapes_are_refused(
    golden: dict[str, Tensor], features: tuple[int, ...], coords: tuple[int, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        build(golden)(torch.zeros(features), torch.zeros(coords))


@pytest.mark.parametrize("sizes", [{"embed_dim": 50, "num_heads": 16}, {"embed_dim": 18, "num_heads": 3}])
def test_widths_that_heads_or_positions_do_not_divide_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="embed_dim"):
        LongNetViT(in_chans=8, depth=1, **sizes)


def test_the_result_does_not_depend_on_the_number_of_threads(golden: dict[str, Tensor]) -> None:
    model = build(golden)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(model(*slide(golden, 1025)).encoder_out)
    finally:
        torch.set_num_threads(threads)

    torch.testing.assert_close(*results, atol=1e-5, rtol=0)


def test_chunks_of_rows_do_not_change_the_result(golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longnet, "CHUNK_TOKENS", 100)

    _, states = run_case(golden, "heads16_tiles1023")

    assert encoder_out_error(golden, "heads16_tiles1023", states) < 1e-5


# Tolerances for values behind a layer norm; measured 5e-3 (fp16) and 3.5e-2 (bf16) on the full model.
@pytest.mark.parametrize(("dtype", "atol", "cosine"), [(torch.float16, 1e-2, 1e-5), (torch.bfloat16, 8e-2, 3e-4)])
def test_half_precision_products_stay_near_and_keep_fp32_states(
    golden: dict[str, Tensor], dtype: torch.dtype, atol: float, cosine: float
) -> None:
    model = build(golden)
    model.use_matmul_dtype(dtype)

    states = model(*slide(golden, 1025), keep="all")

    assert {state.dtype for state in [*states.states, states.encoder_out]} == {torch.float32}
    assert model.encoder.layers[0].self_attn.q_proj.weight.dtype == dtype
    assert model.norm.weight.dtype == torch.float32
    assert encoder_out_error(golden, "heads16_tiles1025", states) < atol
    expected = golden["heads16_tiles1025.encoder_out"][0]
    assert 1 - torch.cosine_similarity(states.encoder_out[0], expected, dim=0) < cosine


def test_building_the_published_model_takes_less_than_a_gigabyte() -> None:
    script = (
        "import resource\n"
        "from encoders.slide_encoder.longnet import LongNetViT\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        f"LongNetViT(**{PUBLISHED})\n"
        "print(peak() - before)\n"
    )

    grown_kib = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout)

    assert grown_kib < 1_000_000_000 / 1024


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_states_on_the_gpu_equal_the_published_code(golden: dict[str, Tensor], name: str) -> None:
    case = dict(CASES[name])
    tiles = case.pop("tiles")
    features, coords = slide(golden, tiles)

    states = build(golden, **case).cuda()(features.cuda(), coords.cuda())

    on_cpu = SlideStates([state.cpu() for state in states.states], states.encoder_out.cpu(), states.keep)
    assert encoder_out_error(golden, name, on_cpu) < 5e-5
