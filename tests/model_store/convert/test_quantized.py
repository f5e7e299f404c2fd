"""Quantised language models: 8 bits are computed here, 4 bits taken from who made them, each under its own name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from packed_checkpoints import (
    CONFIGS,
    Method,
    Packed,
    language_model_of,
    packed_model,
    set_bits,
    write_beside,
    write_packed,
)
from safetensors.torch import load_file, save_file
from toy_checkpoint import LAYERS, LINEARS, Tensors, Toy, toy_manifest

from encoders.encoder_id import encoder_id
from encoders.expected_shapes import expected_shapes
from model_store.convert.convert_model import convert_model
from model_store.convert.float8_weights import float8_rows
from model_store.convert.llava_config import LlavaConfig, packed_shapes, served_shapes
from model_store.convert.packed_weights import packed_form
from model_store.errors import ModelError
from model_store.installed import InstalledModel, verify_digests
from model_store.manifest import Manifest, Quantization
from model_store.verify import verify_shapes
from server.commands.model_commands import Quantize

LAYOUTS = ("merged", "lora", "projector")
MATRICES = [f"model.layers.{layer}.{linear}.weight" for layer in range(LAYERS) for linear in LINEARS]
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    manifest = toy_manifest()
    return manifest.model_copy(update={"llm": manifest.llm.model_copy(update={"dtype": "float16"})})


@pytest.fixture(scope="module")
def published(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Toy]:
    toys = {}
    for layout in LAYOUTS:
        toys[layout] = Toy(tmp_path_factory.mktemp(layout), manifest)
        toys[layout].write_encoders()
        getattr(toys[layout], f"write_{layout}")()
    return toys


@pytest.fixture
def toy(published: dict[str, Toy], tmp_path: Path) -> Callable[[str], Toy]:
    """A copy of one layout, to be added to."""

    def copy(layout: str) -> Toy:
        shutil.copytree(published[layout].folder, tmp_path / "downloads")
        return Toy(tmp_path / "downloads", published[layout].manifest)

    return copy


def convert(toy: Toy, models_dir: Path, quantize: Quantization, said: list[str] | None = None) -> InstalledModel:
    say = (said if said is not None else []).append
    shapes = expected_shapes(toy.manifest)
    model = convert_model(toy.manifest, toy.folder, models_dir, shapes, say, quantize)
    verify_digests(model)
    assert verify_shapes(model, shapes) > 100
    return model


def llm_tensors(model: InstalledModel) -> Tensors:
    tensors: Tensors = {}
    for file in sorted(model.llm_folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def served_config(model: InstalledModel) -> dict[str, Any]:
    return dict(json.loads((model.llm_folder / "config.json").read_text()))


def every_float8() -> torch.Tensor:
    """The 253 finite values of e4m3 but for a second zero, from its definition, in order."""
    positive = [mantissa / 8 * 2.0**-6 for mantissa in range(8)]
    positive += [(1 + mantissa / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for mantissa in range(8)]
    finite = sorted(positive)[:-1]  # the last bit pattern is NaN
    assert finite[-1] == 448
    return torch.tensor([-value for value in finite[:0:-1]] + finite, dtype=torch.float64)


def test_eight_bits_are_the_nearest_value_of_each_row_scaled_to_the_largest() -> None:
    weight = torch.randn(6, 4096, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 3, 6)[:, None]
    weight[5, 100:] = 0

    rounded, scale = float8_rows(weight)

    assert (rounded.dtype, scale.dtype, tuple(scale.shape)) == (torch.float8_e4m3fn, torch.float32, (6, 1))
    torch.testing.assert_close(scale[:, 0], weight.abs().amax(1) / 448)
    quotient = (weight / scale).double()
    nearest = (quotient[..., None] - every_float8()).abs().amin(-1)
    torch.testing.assert_close((rounded.double() - quotient).abs(), nearest, rtol=0, atol=0)


def test_ties_go_to_the_even_value_zeros_stay_and_nothing_becomes_nan() -> None:
    # 448 makes the scale 1; 17 lies between 16 and 18, 19 between 18 and 20.
    rows = torch.tensor([[448.0, 17.0, 19.0, -17.0, 2.0**-10, 3 * 2.0**-10], [0.0] * 6, [1e-44, 0, 0, 0, 0, -1e-44]])

    rounded, scale = float8_rows(rows)

    assert rounded[0].tolist() == [448.0, 16.0, 20.0, -16.0, 0.0, 2.0**-8]
    assert torch.equal(rounded[1].float(), torch.zeros(6))
    assert (rounded.float() * scale).isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_eight_bits(published: dict[str, Toy], tmp_path: Path, layout: str) -> None:
    toy = published[layout]

    model = convert(toy, tmp_path, "fp8")

    tensors = llm_tensors(model)
    assert tensors.keys() == toy.final.keys() | {f"{name}_scale" for name in MATRICES}
    for name, tensor in toy.final.items():
        if name in MATRICES:  # of the merged weights in fp32, not of their halves
            rounded, scale = float8_rows(tensor)
            assert torch.equal(tensors[name].view(torch.uint8), rounded.view(torch.uint8)), name
            assert torch.equal(tensors[f"{name}_scale"], scale), name
        else:
            assert torch.equal(tensors[name], tensor.half()), name
    index = json.loads((model.llm_folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()


def test_a_quantised_model_has_a_name_and_a_digest_of_its_own_and_the_same_encoders(
    published: dict[str, Toy], tmp_path: Path
) -> None:
    whole = convert(published["merged"], tmp_path, "none")

    model = convert(published["merged"], tmp_path, "fp8")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy", "toy-fp8"]
    llm = model.manifest.llm
    assert (model.manifest.name, llm.served_name, llm.quantization) == ("toy-fp8", "demo-fp8", "fp8")
    assert whole.manifest.llm.quantization == "none"
    assert "quantization_config" not in served_config(whole)
    assert model.llm_digest != whole.llm_digest
    assert encoder_id(model) == encoder_id(whole)


def assert_holds(model: InstalledModel, packed: Packed, toy: Toy) -> None:
    """Every tensor is the published one, the projector the checkpoint's in 16 bits."""
    tensors, wanted = llm_tensors(model), {n: t for n, t in packed.stored.items() if not n.endswith("g_idx")}
    wanted |= {name: tensor.half() for name, tensor in toy.projector.items()}
    assert tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert torch.equal(tensors[name], tensor), name
    said = served_config(model)["quantization_config"]
    assert (said["quant_method"], said["group_size"]) == (packed.method, packed.group)
    assert model.manifest.name == f"toy-{packed.method}"
    assert model.manifest.llm.quantization == packed.method


@pytest.mark.parametrize(("layout", "method"), [("merged", "gptq"), ("lora", "awq"), ("projector", "gptq")])
def test_a_quantised_language_model_beside_the_checkpoint_gets_its_projector(
    toy: Callable[[str], Toy], tmp_path: Path, layout: str, method: Method
) -> None:
    one, said = toy(layout), list[str]()
    packed = packed_model(language_model_of(one, one.final), method)
    write_beside(one, packed)

    model = convert(one, tmp_path / "models", method, said)

    assert_holds(model, packed, one)
    downloads = model.manifest.downloads
    assert downloads is not None
    assert "llm_quantized" in downloads
    assert set(downloads["llm_quantized"].sha256) == {"config.json", "model.safetensors"}
    (origin,) = [line for line in said if line.startswith("llm_quantized: it")]
    assert ("not from its base" if layout == "lora" else "cannot be told here") in origin


def test_a_checkpoint_that_is_itself_quantised_is_taken_as_it_is(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    one = toy("merged")
    packed = packed_model(language_model_of(one, one.final), "awq", group=-1)
    whole = Packed("awq", -1, packed.stored | {n: t.half() for n, t in one.projector.items()}, packed.meant)
    write_packed(one, whole, "llm")

    model = convert(one, tmp_path / "models", "awq")

    assert_holds(model, packed, one)


@pytest.mark.parametrize("part", ["llm_base", "llm_quantized"])
def test_a_projector_stands_on_a_quantised_base_alone(toy: Callable[[str], Toy], tmp_path: Path, part: str) -> None:
    one = toy("projector")
    packed = packed_model(language_model_of(one, one.final), "gptq")
    shutil.rmtree(one.folder / "llm_base")
    write_packed(one, packed, part)

    model = convert(one, tmp_path / "models", "gptq")

    assert_holds(model, packed, one)


@pytest.mark.parametrize(
    ("method", "file", "said"),
    [
        ("gptq", "quantize_config.json", {"bits": 4, "group_size": 32, "sym": True, "desc_act": False}),
        ("awq", "quant_config.json", {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}),
    ],
)
def test_a_config_of_its_own_is_read_too(
    toy: Callable[[str], Toy], tmp_path: Path, method: Method, file: str, said: dict[str, Any]
) -> None:
    one = toy("merged")
    packed = packed_model(language_model_of(one, one.final), method)
    write_packed(one, packed, "llm_quantized", separate_config=file)
    one.write_json(f"llm_quantized/{file}", said)

    assert_holds(convert(one, tmp_path / "models", method), packed, one)


@pytest.mark.parametrize(
    ("method", "packed"),
    [("awq", {"q": (4096, 512), "down": (11008, 512)}), ("gptq", {"q": (512, 4096), "down": (1376, 4096)})],
)
def test_a_published_seven_billion_in_groups_of_128_has_these_shapes(
    method: Method, packed: dict[str, tuple[int, int]]
) -> None:
    numbers = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    projector = {"mm_hidden_size": 1024, "mm_projector_type": "mlp2x_gelu"}
    whole = served_shapes(LlavaConfig.model_validate({**numbers, **projector, "num_attention_heads": 32}))

    shapes = packed_shapes(whole, packed_form({**CONFIGS[method], "group_size": 128}))

    assert len(shapes) == len(whole) + 2 * 7 * 32
    for name, groups, module in (("q", 32, "self_attn.q_proj"), ("down", 86, "mlp.down_proj")):
        prefix = f"model.layers.31.{module}"
        assert shapes[f"{prefix}.qweight"] == packed[name]
        assert shapes[f"{prefix}.qzeros"] == (groups, 512)
        assert shapes[f"{prefix}.scales"] == (groups, 4096)
    assert {name: shape for name, shape in shapes.items() if "mm_projector" in name or "norm" in name} == {
        name: shape for name, shape in whole.items() if "mm_projector" in name or "norm" in name
    }


def test_what_was_fine_tuned_is_told_from_its_base(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    one = toy("lora")
    write_beside(one, packed_model(one.base, "awq"))

    with pytest.raises(ModelError, match="made from the base, without what the checkpoint learned"):
        convert(one, tmp_path / "models", "awq")


def test_another_model_is_refused(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    one = toy("merged")
    other = {name: tensor.flip(0) if tensor.ndim == 2 else tensor for name, tensor in one.final.items()}
    write_beside(one, packed_model(language_model_of(one, other), "gptq"))

    with pytest.raises(ModelError, match="q_proj is not the checkpoint's: it was made from another model"):
        convert(one, tmp_path / "models", "gptq")
    assert not (tmp_path / "models/toy-gptq").exists()


@pytest.mark.parametrize(
    ("method", "config", "sentence"),
    [
        ("gptq", {"desc_act": True}, "'desc_act'"),
        ("gptq", {"sym": False}, "'sym'"),
        ("gptq", {"bits": 3}, "'bits'"),
        ("gptq", {"group_size": 48}, "'group_size'.*groups are of 32"),
        ("awq", {"group_size": 128}, "cannot be in awq, 4 bits, groups of 128"),
        ("gptq", {"dynamic": {"-:.*down.*": {}}}, "'dynamic'"),
        ("gptq", {"checkpoint_format": "gptq_v2"}, "not symmetric"),
        ("awq", {"version": "gemv"}, "'version'"),
        ("awq", {"zero_point": False}, "'zero_point'"),
        ("awq", {"quant_method": "bitsandbytes"}, "quantised by 'bitsandbytes'; what can be served is AWQ, GPTQ"),
        ("awq", {"quant_method": "gptq", "sym": True}, "quantised as gptq, not as awq"),
    ],
)
def test_what_vllm_would_not_serve_or_serve_otherwise_is_refused_by_its_key(
    toy: Callable[[str], Toy], tmp_path: Path, method: Method, config: dict[str, Any], sentence: str
) -> None:
    one = toy("merged")
    write_packed(one, packed_model(language_model_of(one, one.final), method), "llm_quantized", **config)

    with pytest.raises(ModelError, match=sentence):
        convert(one, tmp_path / "models", method)


def spoil(name: str, edit: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Tensors], None]:
    def spoiled(tensors: Tensors) -> None:
        changed = edit(tensors.pop(name))
        if changed is not None:
            tensors[name] = changed

    return spoiled


def with_bits(tensor: torch.Tensor) -> torch.Tensor:
    set_bits(tensor.numpy(), 3, 5)
    return tensor


TENSOR_FAULTS = [
    ("gptq", spoil(f"{Q}.g_idx", lambda tensor: tensor.flip(0)), r"g_idx' are not in their order \(act-order\)"),
    ("gptq", spoil(f"{Q}.qzeros", with_bits), r"qzeros' are not symmetric"),
    ("gptq", spoil(f"{Q}.scales", lambda tensor: tensor * torch.nan), r"scales' holds NaN"),
    ("awq", spoil(f"{Q}.qweight", lambda tensor: tensor.T.contiguous()), r"q_proj\.qweight'.* the shape"),
    ("awq", spoil(f"{Q}.qweight", lambda tensor: tensor.float()), "not 32-bit integers"),
    ("awq", spoil("model.layers.1.mlp.down_proj.qzeros", lambda tensor: None), r"lacks.*1\.mlp\.down_proj\.qzeros'"),
    ("awq", spoil("lm_head.weight", lambda tensor: tensor.to(torch.int8)), r"lm_head\.weight'.*int8, not floating"),
]


@pytest.mark.parametrize(("method", "edit", "sentence"), TENSOR_FAULTS)
def test_a_wrong_tensor_of_a_quantised_model_is_named(
    toy: Callable[[str], Toy], tmp_path: Path, method: Method, edit: Callable[[Tensors], None], sentence: str
) -> None:
    one = toy("projector")
    shutil.rmtree(one.folder / "llm_base")
    file = write_beside(one, packed_model(language_model_of(one, one.final), method)) / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    edit(tensors)
    save_file(tensors, file)

    with pytest.raises(ModelError, match=sentence):
        convert(one, tmp_path / "models", method)


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta", "num_attention_heads"])
def test_a_quantised_llama_with_other_numbers_is_refused(toy: Callable[[str], Toy], tmp_path: Path, key: str) -> None:
    one = toy("merged")
    packed = packed_model(language_model_of(one, one.final), "awq")
    one.config = {**one.config, key: 4}
    write_beside(one, packed)

    with pytest.raises(ModelError, match=f"says {key} 4"):
        convert(one, tmp_path / "models", "awq")


def test_newer_names_of_the_same_numbers_are_understood(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    one = toy("merged")
    packed = packed_model(language_model_of(one, one.final), "awq")
    del one.config["rope_scaling"]
    one.config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0}
    write_beside(one, packed)

    with pytest.raises(ModelError, match=r"says rope_theta 500\.0, the checkpoint 10000\.0"):
        convert(one, tmp_path / "models", "awq")


def test_what_is_quantised_must_be_asked_for_and_what_is_asked_for_must_be_there(
    toy: Callable[[str], Toy], tmp_path: Path
) -> None:
    one, said = toy("merged"), list[str]()
    with pytest.raises(ModelError, match="in llm/ is not quantised: put it, quantised, into llm_quantized/"):
        convert(one, tmp_path / "models", "awq")

    packed = packed_model(language_model_of(one, one.final), "awq")
    write_beside(one, packed)
    convert(one, tmp_path / "models", "fp8", said)
    assert "llm_quantized: not used; --quantize awq or gptq asks for it" in said

    write_packed(one, packed, "llm")
    for quantize in get_args(Quantization)[:2]:
        with pytest.raises(ModelError, match=r"quantised already \(awq, 4 bits, groups of 32\)"):
            convert(one, tmp_path / "models", quantize)
    with pytest.raises(ModelError, match="both hold a quantised model"):
        convert(one, tmp_path / "models", "awq")


def test_an_adapter_is_not_folded_into_four_bits(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    one = toy("lora")
    write_packed(one, packed_model(one.base, "awq"), "llm_base")

    with pytest.raises(ModelError, match="An adapter cannot be folded into a quantised base"):
        convert(one, tmp_path / "models", "awq")


def test_a_manifest_of_32_bits_is_refused(published: dict[str, Toy], tmp_path: Path) -> None:
    one = Toy(published["merged"].folder, toy_manifest())

    with pytest.raises(ModelError, match=r"set the manifest's llm\.dtype to float16 or bfloat16"):
        convert(one, tmp_path, "fp8")


def test_a_folder_that_is_quantised_otherwise_than_its_manifest_says_does_not_verify(
    published: dict[str, Toy], tmp_path: Path
) -> None:
    model = convert(published["merged"], tmp_path, "fp8")
    config = served_config(model)
    del config["quantization_config"]
    (model.llm_folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelError, match="disagree on how it is quantised"):
        verify_shapes(model, expected_shapes(model.manifest))


def test_the_command_offers_what_a_manifest_can_say() -> None:
    assert {"none", *get_args(Quantize)} == set(get_args(Quantization))
