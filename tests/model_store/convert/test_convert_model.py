"""Published files become an installed model: the same one from each layout, whole or not at all, every fault named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_checkpoint import INV_FREQ, TOWER, Toy, toy_manifest

from encoders.expected_shapes import expected_shapes
from encoders.pipeline import load_encoders
from model_store.contracts.fields import Dtype
from model_store.convert.convert_model import convert_model
from model_store.errors import ModelError
from model_store.files.write_safetensors import TORCH_DTYPES
from model_store.installed import InstalledModel, open_model, verify_digests
from model_store.manifest import Manifest

LAYOUTS = ("merged", "lora", "projector")
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return toy_manifest()


@pytest.fixture(scope="module")
def published(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Toy]:
    """The same model in each layout."""
    toys = {}
    for layout in LAYOUTS:
        toys[layout] = Toy(tmp_path_factory.mktemp(layout), manifest)
        toys[layout].write_encoders()
        getattr(toys[layout], f"write_{layout}")()
    return toys


@pytest.fixture
def toy(published: dict[str, Toy], tmp_path: Path) -> Callable[[str], Toy]:
    """A copy of one layout, to be spoiled."""

    def copy(layout: str) -> Toy:
        shutil.copytree(published[layout].folder, tmp_path / "downloads")
        return Toy(tmp_path / "downloads", published[layout].manifest)

    return copy


def convert(toy: Toy, models_dir: Path, said: list[str] | None = None) -> InstalledModel:
    say = (said if said is not None else []).append
    return convert_model(toy.manifest, toy.folder, models_dir, expected_shapes(toy.manifest), say)


def llm_tensors(model: InstalledModel) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(model.llm_folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_model(published: dict[str, Toy], tmp_path: Path, layout: str) -> None:
    toy = published[layout]

    model = convert(toy, tmp_path)

    tensors = llm_tensors(model)
    assert tensors.keys() == toy.final.keys()
    for name, tensor in toy.final.items():
        assert torch.equal(tensors[name], tensor), name
    verify_digests(model)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"], "nothing is left beside it"


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 0), ("float16", 1e-2), ("bfloat16", 1e-1)])
def test_the_tile_encoder_loads_and_runs_in_every_dtype(
    toy: Callable[[str], Toy], tmp_path: Path, dtype: Dtype, atol: float
) -> None:
    one = toy("merged")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    exact = load_encoders(convert(one, tmp_path / "exact"), "cpu").inputs["tiles"].tiles.encode(pixels)
    one.manifest = one.manifest.with_inputs(tile_encoder={"dtype": dtype})

    model = convert(one, tmp_path / "models")

    assert {
        tensor.dtype for tensor in load_file(model.file(model.manifest.first_input.tile_encoder.weights)).values()
    } == {TORCH_DTYPES[dtype]}
    np.testing.assert_allclose(
        load_encoders(model, "cpu").inputs["tiles"].tiles.encode(pixels), exact, atol=atol, rtol=0
    )


def test_the_index_lists_each_tensor_in_the_file_that_holds_it(published: dict[str, Toy], tmp_path: Path) -> None:
    folder = convert(published["projector"], tmp_path).llm_folder

    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held = {name: file.name for file in folder.glob("*.safetensors") for name in load_file(file)}
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == sum(
        4 * tensor.numel() for tensor in published["projector"].final.values()
    )


def test_a_single_published_file_stays_single(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    single = toy("merged")
    shutil.rmtree(single.folder / "llm")
    single.write_merged(shards=1)

    model = convert(single, tmp_path / "models")

    assert [file.name for file in model.llm_folder.glob("*.safetensors*")] == ["model.safetensors"]


@pytest.mark.parametrize("form", ["safetensors", "pickle of PyTorch before 1.6"])
def test_other_file_forms_convert_alike(toy: Callable[[str], Toy], tmp_path: Path, form: str) -> None:
    other = toy("merged")
    for path in (other.folder / "llm").glob("pytorch_model*"):
        path.unlink()
    if form == "safetensors":
        save_file(other.final, other.folder / "llm/model.safetensors")
    else:
        torch.save(other.final, other.folder / "llm/pytorch_model.bin", _use_new_zipfile_serialization=False)

    tensors = llm_tensors(convert(other, tmp_path / "models"))

    assert all(torch.equal(tensors[name], tensor) for name, tensor in other.final.items())


def test_what_is_left_out_is_said_and_the_rest_of_the_story_too(published: dict[str, Toy], tmp_path: Path) -> None:
    said: list[str] = []

    convert(published["merged"], tmp_path, said)

    assert "llm: the layout is merged" in said
    assert "slide_encoder: not served and left out: pos_embed, mask_token" in said
    (left_out,) = [line for line in said if line.startswith("llm: not served")]
    assert TOWER in left_out
    assert INV_FREQ in left_out


def test_first_use_is_recorded_and_another_file_is_refused_later(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    first, said = toy("lora"), list[str]()
    installed = convert(first, tmp_path / "models", said).manifest.downloads
    assert installed is not None
    for part, download in installed.items():
        assert download.digests == "recorded"
        for file, digest in download.sha256.items():
            assert any(f"{part}/{file}: SHA-256 {digest} recorded" in line for line in said)
    again: list[str] = []
    convert(first, tmp_path / "models", again)
    assert not any("recorded" in line for line in again)

    first.save("llm/non_lora_trainables.bin", {"base_model.model.x": torch.zeros(1)})

    with pytest.raises(ModelError, match=r"llm/non_lora_trainables\.bin is not the file that was converted first"):
        convert(first, tmp_path / "models")
    verify_digests(open_model(tmp_path / "models", "toy"))


def test_a_published_digest_is_enforced(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    pinned = toy("merged")
    assert pinned.manifest.downloads is not None
    wanted = pinned.manifest.downloads["slide_encoder"].model_copy(
        update={"digests": "published", "sha256": {"slide_encoder.pth": "0" * 64}}
    )
    downloads = {**pinned.manifest.downloads, "slide_encoder": wanted}
    pinned.manifest = pinned.manifest.model_copy(update={"downloads": downloads})

    with pytest.raises(ModelError, match=r"slide_encoder/slide_encoder\.pth is not the published file"):
        convert(pinned, tmp_path / "models")


def test_rslora_divides_by_the_root_of_the_rank(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    rooted = toy("lora")
    adapter = json.loads((rooted.folder / "llm/adapter_config.json").read_text())
    rooted.write_json("llm/adapter_config.json", {**adapter, "use_rslora": True})

    merged = llm_tensors(convert(rooted, tmp_path / "models"))[Q]

    # alpha / sqrt(4) is twice alpha / 4.
    torch.testing.assert_close(merged, rooted.base[Q] + 2 * (rooted.final[Q] - rooted.base[Q]))


def test_a_half_precision_target_rounds_the_fp32_sum_once(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    half = toy("lora")
    llm = half.manifest.llm.model_copy(update={"dtype": "float16"})
    half.manifest = half.manifest.model_copy(update={"llm": llm})

    tensors = llm_tensors(convert(half, tmp_path / "models"))

    assert all(torch.equal(tensors[name], tensor.half()) for name, tensor in half.final.items())


def spoil_tensor(toy: Toy, path: str, name: str, tensor: torch.Tensor | None, entry: str | None = None) -> None:
    """Replaces, adds or (None) removes one tensor of a file."""
    content = toy.load(path)
    tensors = content[entry] if entry else content
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    toy.save(path, content)


SHARD = "llm/pytorch_model-00001-of-00002.bin"
SHARD_2 = "llm/pytorch_model-00002-of-00002.bin"
BASE_SHARD = "llm_base/pytorch_model-00001-of-00002.bin"
SLIDE, TILE = "slide_encoder/slide_encoder.pth", "tile_encoder/pytorch_model.bin"
TENSOR_FAULTS = [
    ("merged", SHARD, "model.embed_tokens.weight", None, r"lacks the tensors 'model\.embed_tokens\.weight';"),
    ("merged", SHARD, "model.image_newline", torch.ones(4), r"'model\.image_newline' in pytorch_model-00001-of"),
    ("merged", SHARD, "model.embed_tokens.weight", torch.ones(3, 64), r"embed_tokens\.weight'.* the shape \[3, 64\]"),
    ("merged", SHARD_2, "model.norm.weight", torch.ones(64).int(), r"'model\.norm\.weight' .* not floating point"),
    ("merged", SHARD, "lm_head.weight", torch.ones(7, 64), r"lm_head\.weight'.* \[7, 64\]"),
    ("merged", SHARD_2, "model.norm.weight", torch.full((64,), torch.nan), r"'model\.norm\.weight' holds NaN"),
    (
        "merged",
        SHARD,
        "model.norm.weight",
        torch.ones(64),
        r"'model\.norm\.weight' is in .*-00001-of.* and in .*-00002-",
    ),
    ("lora", "llm/non_lora_trainables.bin", "base_model.model.model.mm_projector.0.bias", torch.ones(5), r"\[5\]"),
    ("lora", "llm/adapter_model.bin", "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", None, "only one of"),
    ("lora", "llm/adapter_model.bin", "base_model.model.lm_head.bias", torch.ones(5), r"'base_model\.model\.lm_head"),
    ("projector", "llm/mm_projector.bin", "model.mm_projector.2.bias", None, r"lacks.*mm_projector\.2\.bias"),
    ("projector", BASE_SHARD, "model.extra", torch.ones(5), r"'model\.extra'"),
    ("merged", TILE, "cls_token", None, r"The tile encoder lacks the tensors 'cls_token';"),
    ("merged", TILE, "head.weight", torch.ones(5), r"'head\.weight' in pytorch_model\.bin has no place"),
    ("merged", TILE, "cls_token", torch.ones(1, 1, 3), r"'cls_token' .* \[1, 1, 3\], the tile encoder needs"),
]


@pytest.mark.parametrize(("layout", "path", "name", "tensor", "sentence"), TENSOR_FAULTS)
def test_a_tensor_that_is_wrong_is_named_and_nothing_is_installed(
    toy: Callable[[str], Toy],
    tmp_path: Path,
    layout: str,
    path: str,
    name: str,
    tensor: torch.Tensor | None,
    sentence: str,
) -> None:
    spoiled = toy(layout)
    spoil_tensor(spoiled, path, name, tensor)

    with pytest.raises(ModelError, match=sentence):
        convert(spoiled, tmp_path / "models")
    with pytest.raises(ModelError, match="not installed"):
        open_model(tmp_path / "models", "toy")


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("norm.weight", None, r"The slide encoder lacks the tensors 'norm\.weight';"),
        ("head.weight", torch.ones(2), r"'head\.weight' in slide_encoder\.pth has no place in the slide encoder"),
        ("cls_token", torch.ones(1, 1, 5), r"'cls_token' in slide_encoder\.pth has the shape \[1, 1, 5\]"),
        ("cls_token", torch.full((1, 1, 96), torch.inf), r"'cls_token' holds NaN or infinity"),
    ],
)
def test_a_wrong_tensor_of_the_slide_encoder_is_named(
    toy: Callable[[str], Toy], tmp_path: Path, name: str, tensor: torch.Tensor | None, sentence: str
) -> None:
    spoiled = toy("merged")
    spoil_tensor(spoiled, SLIDE, name, tensor, entry="model")

    with pytest.raises(ModelError, match=sentence):
        convert(spoiled, tmp_path / "models")


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("merged", SHARD),
        ("merged", SLIDE),
        ("merged", TILE),
        ("lora", "llm/adapter_model.bin"),
        ("lora", BASE_SHARD),
        ("projector", "llm/mm_projector.bin"),
        ("merged", "llm/config.json"),
        ("merged", "llm/pytorch_model.bin.index.json"),
        ("merged", "llm/tokenizer_config.json"),
    ],
)
def test_a_truncated_or_missing_file_is_named(
    toy: Callable[[str], Toy], tmp_path: Path, layout: str, path: str
) -> None:
    spoiled = toy(layout)
    file = spoiled.folder / path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with pytest.raises(ModelError, match=file.name):
        convert(spoiled, tmp_path / "models")
    if "index" not in path:
        file.unlink()
        with pytest.raises(ModelError, match=file.name):
            convert(spoiled, tmp_path / "models")
    assert not (tmp_path / "models/toy").exists()


def test_a_pickle_with_code_is_refused_and_not_run(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    hostile, trace = toy("merged"), tmp_path / "executed"
    payload = f"cposix\nsystem\n(S'touch {trace}'\ntR.".encode()
    (hostile.folder / SLIDE).write_bytes(payload)

    with pytest.raises(ModelError, match=r"slide_encoder\.pth is damaged, or holds more than tensors"):
        convert(hostile, tmp_path / "models")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm_projector_type", "linear"),
        ("mm_hidden_size", 768),
        ("hidden_size", "many"),
        ("vocab_size", None),
        ("tie_word_embeddings", True),
        ("rope_scaling", {"type": "linear", "factor": 2}),
        ("mm_use_im_start_end", True),
    ],
)
def test_a_config_that_cannot_be_served_is_refused_by_its_key(
    toy: Callable[[str], Toy], tmp_path: Path, key: str, value: object
) -> None:
    other = toy("merged")
    other.write_json("llm/config.json", {**other.config, key: value})

    with pytest.raises(ModelError, match=key):
        convert(other, tmp_path / "models")


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_dora", True), ("bias", "all"), ("rank_pattern", {"q_proj": 8}), ("r", 8), ("peft_type", "IA3")],
)
def test_an_adapter_of_another_kind_is_refused_by_its_key(
    toy: Callable[[str], Toy], tmp_path: Path, key: str, value: object
) -> None:
    other = toy("lora")
    adapter = json.loads((other.folder / "llm/adapter_config.json").read_text())
    other.write_json("llm/adapter_config.json", {**adapter, key: value})

    with pytest.raises(ModelError, match=key if key != "r" else "rank 8"):
        convert(other, tmp_path / "models")


def test_an_index_cannot_lead_out_of_its_folder(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    hostile = toy("merged")
    hostile.write_json("llm/pytorch_model.bin.index.json", {"weight_map": {"a": "../tile_encoder/pytorch_model.bin"}})

    with pytest.raises(ModelError, match="is missing"):
        convert(hostile, tmp_path / "models")


def test_a_checkpoint_with_two_layouts_is_refused(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    both = toy("lora")
    both.write_merged()

    with pytest.raises(ModelError, match="both merged weights and an adapter"):
        convert(both, tmp_path / "models")


def test_an_adapter_without_its_base_asks_for_it(toy: Callable[[str], Toy], tmp_path: Path) -> None:
    alone = toy("lora")
    shutil.rmtree(alone.folder / "llm_base")

    with pytest.raises(ModelError, match="fetch llm_base too"):
        convert(alone, tmp_path / "models")


def test_the_published_temperature_does_not_become_everyones(published: dict[str, Toy], tmp_path: Path) -> None:
    folder = convert(published["merged"], tmp_path).llm_folder

    assert json.loads((folder / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
