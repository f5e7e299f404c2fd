"""Every kind that docs/add-a-model.md describes: installed from a folder, it computes what plain PyTorch does."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parts_in_memory import PartsInMemory
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from toy_kinds import documented, documented_manifest, toy_of

from encoders.caller import Caller
from encoders.encoder_id import encoder_id
from encoders.errors import EncodeCancelled, EncoderOverflowed
from encoders.features_file import read_features
from encoders.golden_vector import check_golden, record_golden
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.slide_encoder.positions import axis_table
from encoders.slide_stages.tile_stage import Tiles, TileStage, thinning
from encoders.tile_encoder.torchvision_ops import VisionTransformer, timm
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.types import SlideEmbedding, SlideFile, SlideWarning, TilePlan
from model_store.contracts.tile_encoder import ConchTileEncoder, InputSpec, TileEncoderSpec, TimmTileEncoder
from model_store.installed import InstalledModel

KINDS = ("longnet-pool", "longnet-all", "mean", "none")  # test_hierarchical has the fifth
Weights = dict[str, Tensor]


def two_inputs() -> dict[str, Any]:
    """The documented input at two magnifications."""
    [given] = documented()[0]["inputs"].values()
    return {"fine": given, "coarse": {**given, "tiling": {**given["tiling"], "target_mpp": 1.0}}}


def embedding_of(encoders: Encoders, slide: Path, folder: Path, caller: Caller | None = None) -> SlideEmbedding:
    return encode_slide(
        SlideFile("ab" * 32, slide),
        encoders,
        mpp_override=None,
        limits=ReaderLimits(),
        features_path=folder / "features.h5",
        caller=caller or Caller(),
    )


@cache
def tiles_of(slide: Path, target_mpp: float) -> tuple[NDArray[np.uint8], TilePlan]:
    """Pixels [N, P, P, 3] of the documented tiles at that resolution."""
    given = documented_manifest().first_input.tiling.model_copy(update={"target_mpp": target_mpp})
    with ReaderProcess(slide, ReaderLimits()) as reader:
        plan = reader.plan(given, None)
        return np.concatenate([batch.pixels.copy() for batch in reader.tiles(16)]), plan


def plain_features(model: InstalledModel, given: InputSpec, slide: Path) -> tuple[Tensor, Tensor, float]:
    """The published model on the slide's tiles: features [N, C], level-0 corners [N, 2], a tile's side at level 0."""
    spec, margin = given.tile_encoder, (given.tiling.tile_px - given.tile_encoder.input_px) // 2
    pixels, plan = tiles_of(slide, given.tiling.target_mpp)
    inner = pixels[:, margin : margin + spec.input_px, margin : margin + spec.input_px]
    weights = load_file(model.folder / spec.weights)
    plain = plain_timm if isinstance(spec, TimmTileEncoder) else plain_conch
    with torch.no_grad():
        return plain(spec, weights, inner), torch.from_numpy(plan.coords), plan.tile_px_level0


def normalised(spec: TileEncoderSpec, pixels: NDArray[np.uint8]) -> Tensor:
    scaled = (torch.from_numpy(pixels).float() / 255 - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    return scaled.permute(0, 3, 1, 2)


def plain_timm(spec: TimmTileEncoder, weights: Weights, pixels: NDArray[np.uint8]) -> Tensor:
    network = timm.create_model(spec.timm_model, pretrained=False, **spec.timm_args).eval()
    network.load_state_dict(weights)
    return network(normalised(spec, pixels))


def plain_conch(spec: ConchTileEncoder, weights: Weights, pixels: NDArray[np.uint8]) -> Tensor:
    """CONCH's `forward_no_head` behind its own preprocessing: Pillow's resize, a timm trunk, a query by hand."""
    side = (spec.enlarged_px, spec.enlarged_px)
    enlarged = np.stack([np.asarray(Image.fromarray(tile).resize(side, Image.Resampling.BICUBIC)) for tile in pixels])
    size = {"embed_dim": spec.width, "depth": spec.depth, "num_heads": spec.num_heads}
    trunk = VisionTransformer(img_size=spec.enlarged_px, patch_size=16, num_classes=0, **size).eval()
    trunk.load_state_dict({name[6:]: weights.pop(name) for name in sorted(weights) if name.startswith("trunk.")})
    tokens = trunk.forward_features(normalised(spec, enlarged))
    weights = {name.removeprefix("attn_pool_contrast."): tensor for name, tensor in weights.items()}

    def norm(name: str, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows, rows.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    biases = weights["attn.in_proj_bias"].chunk(3)
    given = (norm("ln_q", weights["query"])[None], norm("ln_k", tokens), norm("ln_k", tokens))
    q, k, v = (
        (rows @ weights[f"attn.{name}_proj_weight"].T + bias).unflatten(2, (8, -1)).transpose(1, 2)
        for name, rows, bias in zip("qkv", given, biases, strict=True)
    )
    pooled = ((q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)[:, 0]
    return norm("ln_contrast", pooled @ weights["attn.out_proj.weight"].T + weights["attn.out_proj.bias"])


def plain_layers(weights: Weights, x: Tensor, depth: int, heads: int, prefix: str) -> Tensor:
    """Transformer layers with LongNet's four norms, where one undilated segment holds all tokens."""

    def norm(name: str, rows: Tensor) -> Tensor:
        at = f"{prefix}{name}"
        return functional.layer_norm(rows, rows.shape[-1:], weights[f"{at}.weight"], weights[f"{at}.bias"], 1e-5)

    def linear(name: str, rows: Tensor) -> Tensor:
        return functional.linear(rows, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    for number in range(depth):
        layer = f"layers.{number}"
        normed = norm(f"{layer}.self_attn_layer_norm", x)
        q, k, v = (
            linear(f"{layer}.self_attn.{name}_proj", normed).unflatten(1, (heads, -1)).transpose(0, 1) for name in "qkv"
        )
        scores = (q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + linear(f"{layer}.self_attn.out_proj", norm(f"{layer}.self_attn.inner_attn_ln", mixed))
        hidden = functional.gelu(linear(f"{layer}.ffn.fc1", norm(f"{layer}.final_layer_norm", x)))
        x = x + linear(f"{layer}.ffn.fc2", norm(f"{layer}.ffn.ffn_layernorm", hidden))
    return x


def plain_rows(model: InstalledModel, slide: Path) -> Tensor:
    """The documented composition, written out again."""
    stage, inputs = model.manifest.slide_stage, model.manifest.inputs
    features = [plain_features(model, given, slide) for given in inputs.values()]
    tiles, coords, side = features[0]
    if stage.kind == "none":
        return tiles
    if stage.kind == "mean":
        return torch.stack([rows.mean(0) for rows, _, _ in features])
    weights = load_file(model.folder / stage.weights)
    if stage.kind == "longnet-all":
        x = plain_layers(weights, tiles, stage.depth, stage.num_heads, "")
        return functional.layer_norm(x, x.shape[-1:], weights["layer_norm.weight"], weights["layer_norm.bias"], 1e-5)
    cells = torch.floor(coords / side).long()
    table = axis_table(stage.slide_ngrids, stage.embed_dim // 2)
    tokens = functional.linear(tiles, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"])
    tokens = tokens + torch.cat([table[cells[:, 1]], table[cells[:, 0]]], dim=1)
    x = torch.cat([weights["cls_token"][0], tokens])
    last = plain_layers(weights, x, stage.depth, stage.num_heads, "encoder.")[1:]
    pooled = functional.adaptive_avg_pool1d(last.T[None], stage.slide_tokens)[0].T
    return functional.layer_norm(pooled, pooled.shape[-1:], weights["norm.weight"], weights["norm.bias"], 1e-6)


@pytest.mark.parametrize(
    "kinds",
    [*((("slide_stage", kind),) for kind in KINDS), (("tile_encoder", "conch"), ("slide_stage", "none"))],
    ids=lambda kinds: ", ".join(kind for _, kind in kinds),
)
def test_a_kind_is_installed_from_a_folder_and_computes_what_plain_torch_does(
    kinds: tuple[tuple[str, str], ...], tmp_path: Path, sample_slide: Path
) -> None:
    model = toy_of(documented_manifest(*kinds), tmp_path)

    with load_encoders(model, "cpu") as encoders:
        embedding = embedding_of(encoders, sample_slide, tmp_path)

    rows, expected = embedding.tensors["slide_tokens"], plain_rows(model, sample_slide).numpy()
    assert rows.shape == expected.shape
    assert rows.shape == (
        model.manifest.slide_stage.rows_of(embedding.tile_count, model.manifest.inputs),
        model.manifest.row_width,
    )
    assert expected.std() > 0.05, "the output is not trivially equal"
    # Half precision is what is kept: 2^-11 of the value.
    np.testing.assert_allclose(rows.astype(np.float32), expected, rtol=1e-3, atol=1e-3)


def test_every_kind_is_described_on_the_page() -> None:
    assert {kind for name, kind in documented()[1] if name == "slide_stage"} == {*KINDS, "hierarchical"}
    assert {kind for name, kind in documented()[1] if name == "tile_encoder"} == {"timm", "conch"}
    assert {kind for name, kind in documented()[1] if name == "projector"} == {"mlp", "none"}
    assert {kind for name, kind in documented()[1] if name == "prompt"} == {"llava", "chatml"}


@pytest.fixture(scope="module")
def two_magnifications(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    manifest = documented_manifest(("slide_stage", "mean"), inputs=two_inputs())
    return toy_of(manifest, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def two_encoders(two_magnifications: InstalledModel) -> Iterator[Encoders]:
    with load_encoders(two_magnifications, "cpu") as encoders:
        yield encoders


def test_two_magnifications_are_two_rows(two_encoders: Encoders, tmp_path: Path, sample_slide: Path) -> None:
    progress: list[tuple[str, int, int]] = []

    embedding = embedding_of(
        two_encoders, sample_slide, tmp_path, Caller(lambda stage, done, total: progress.append((stage, done, total)))
    )

    expected = plain_rows(two_encoders.model, sample_slide).numpy()
    assert len(expected) == 2
    assert np.abs(expected[0] - expected[1]).max() > 0.01, "they are not the same tiles"
    np.testing.assert_allclose(embedding.tensors["slide_tokens"].astype(np.float32), expected, rtol=1e-3, atol=1e-3)
    counted = [(done, total) for stage, done, total in progress if stage == "encode_tiles"]
    assert counted == sorted(counted), "progress counts the tiles of both"
    assert counted[-1][0] == counted[-1][1] > embedding.tile_count
    assert len(read_features(tmp_path / "features.h5").features) == embedding.tile_count, "the first input's"


def test_an_attempt_goes_on_within_the_second_magnification(
    two_encoders: Encoders, tmp_path: Path, sample_slide: Path
) -> None:
    parts, whole = PartsInMemory(), embedding_of(two_encoders, sample_slide, tmp_path)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "encode_tiles" and done > whole.tile_count:
            caller.cancelled.set()

    caller = Caller(stop, parts=parts)
    with pytest.raises(EncodeCancelled):
        embedding_of(two_encoders, sample_slide, tmp_path, caller)
    assert any(name.startswith("coarse-") for name in parts.stored)

    first: list[int] = []
    again = Caller(lambda stage, done, total: first.append(done) if stage == "encode_tiles" else None, parts=parts)
    resumed = embedding_of(two_encoders, sample_slide, tmp_path, again)

    assert first[0] > whole.tile_count, "nothing that was kept is encoded again"
    assert np.array_equal(resumed.tensors["slide_tokens"], whole.tensors["slide_tokens"])


def test_a_golden_vector_covers_every_input(tmp_path: Path) -> None:
    model = record_golden(toy_of(documented_manifest(("slide_stage", "mean"), inputs=two_inputs()), tmp_path), "cpu")

    found = check_golden(model, "cpu")

    assert found is not None
    assert (found.tile_features, found.slide_tokens) == (0, 0)


def test_the_order_of_inputs_and_whatever_a_kind_says_are_part_of_the_encoder_id(
    two_magnifications: InstalledModel, tmp_path: Path
) -> None:
    model = two_magnifications
    inputs = dict(reversed(model.manifest.inputs.items()))
    other = InstalledModel(model.folder, model.manifest.model_copy(update={"inputs": inputs}), model.digests)
    assert encoder_id(other) != encoder_id(model)

    ids = set()
    for kind, changes in (
        ("longnet-all", {}),
        ("longnet-all", {"max_rows": 9}),
        ("none", {}),
        ("none", {"max_rows": 9}),
    ):
        manifest = documented_manifest(("slide_stage", kind))
        stage = manifest.slide_stage.model_copy(update=changes)
        digests = dict.fromkeys(manifest.weights_files().values(), "0" * 64)
        ids.add(encoder_id(InstalledModel(tmp_path, manifest.model_copy(update={"slide_stage": stage}), digests)))
    assert len(ids) == 4


@pytest.fixture(scope="module")
def all_rows(tmp_path_factory: pytest.TempPathFactory) -> TileStage:
    model = toy_of(documented_manifest(), tmp_path_factory.mktemp("all"))
    stage = load_encoders(model, "cpu").stage
    assert isinstance(stage, TileStage)
    return stage


def drawn(tiles: int) -> Tiles:
    features = np.random.default_rng(tiles).standard_normal((tiles, 64), dtype=np.float32)
    coords = np.stack([np.arange(tiles), np.zeros(tiles)], axis=1).astype(np.int64) * 256
    return Tiles(features, coords, 256, 256)


@pytest.mark.parametrize("tiles", [1, 3, 300])
def test_a_slide_has_as_many_rows_as_tiles(all_rows: TileStage, tiles: int) -> None:
    assert all_rows.rows({"tiles": drawn(tiles)}, lambda: None).shape == (tiles, 64)


def test_a_slide_over_the_cap_is_thinned_evenly_and_it_is_said(all_rows: TileStage) -> None:
    tiles, most = drawn(2_000), all_rows.spec.most_rows(all_rows.inputs)
    chosen = np.linspace(0, 1_999, most).astype(int)
    thinned = Tiles(tiles.features[chosen], tiles.coords[chosen], 256, 256)

    rows = all_rows.rows({"tiles": tiles}, lambda: None)

    assert np.array_equal(rows, all_rows.rows({"tiles": thinned}, lambda: None))
    assert len(rows) == most == 1_500
    [warning] = thinning(all_rows.spec, 2_000, all_rows.inputs)
    assert isinstance(warning, SlideWarning)
    assert (warning.code, "2000 tiles" in warning.detail, "1500" in warning.detail) == ("tiles_thinned", True, True)
    assert thinning(all_rows.spec, most, all_rows.inputs) == ()


def test_a_slide_that_is_thinned_says_so_from_pixels_and_from_features(tmp_path: Path, sample_slide: Path) -> None:
    few = {"kind": "none", "max_rows": 5}
    said: list[tuple[SlideWarning, ...]] = []
    with load_encoders(toy_of(documented_manifest(slide_stage=few), tmp_path), "cpu") as encoders:
        caller = Caller(on_warnings=said.append)
        from_pixels = embedding_of(encoders, sample_slide, tmp_path, caller)
        (tmp_path / "features.h5").rename(tmp_path / "given.h5")
        from_features = embedding_of(encoders, tmp_path / "given.h5", tmp_path, caller)

    assert [[warning.code for warning in warnings] for warnings in said] == [["tiles_thinned"]] * 2
    assert from_pixels.tile_count > len(from_pixels.tensors["slide_tokens"]) == 5
    assert np.array_equal(from_features.tensors["slide_tokens"], from_pixels.tensors["slide_tokens"])


def test_features_beyond_16_bits_are_no_rows(tmp_path: Path) -> None:
    stage = load_encoders(toy_of(documented_manifest(("slide_stage", "none")), tmp_path), "cpu").stage
    assert isinstance(stage, TileStage)

    with pytest.raises(EncoderOverflowed):
        stage._tensors({"tiles": Tiles(np.full((2, 64), 1e6, np.float32), np.zeros((2, 2), np.int64), 256, 256)}, int)
