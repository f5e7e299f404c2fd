import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tile_encoder import CPU, spec_of

from benchmarks import tile_encoder
from benchmarks.matrix_ceiling import Product, Products, flop_per_tile, linear_products, square
from benchmarks.random_tile_encoder import encoder_specs, write_random_weights
from benchmarks.take_turns import Cost, Turns
from benchmarks.tile_encoder_methods import EAGER, FLOAT8, USUAL, Ours, Usual
from benchmarks.tile_encoder_rates import OWN_PRODUCTS, SQUARE, Plan, rates_of
from encoders.tile_encoder.float8_gate import cosines
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_encoder, "encoder_specs", lambda: {"small": spec_of()})


def test_it_ends_with_a_table_and_every_round(
    small_model: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    command = ["--model", "small", "--device", "cpu", "--dtype", "float32", "--batch", "4", "--float8"]

    assert tile_encoder.main([*command, "--rounds", "2", "--json", str(path)]) == 0

    shown = capsys.readouterr().out
    result = json.loads(path.read_text())
    assert f"{FLOAT8} is left out: " in shown
    assert all(f"| {name} |" in shown for name in (SQUARE, OWN_PRODUCTS, EAGER, USUAL))
    assert result["tiles_per_round"] == 8
    assert result["spec"]["dtype"] == "float32"
    assert set(result["rounds"]["costs"]) == {SQUARE, OWN_PRODUCTS, EAGER, USUAL}
    assert [len(costs) for costs in result["rounds"]["costs"].values()] == [2, 2, 2, 2]
    assert result["agreement_with_float32"][EAGER]["least_cosine"] > 0.99999
    assert result["versions"]["torch"] == torch.__version__


def test_no_time_counts_of_wrong_features(
    small_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = Ours._encode
    monkeypatch.setattr(Ours, "_encode", lambda self, tiles: np.flip(encode(self, tiles), 1))

    assert tile_encoder.main(["--model", "small", "--device", "cpu", "--json", str(tmp_path / "result.json")]) == 1

    assert "ours: the cosine to the model in float32 is" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


def test_operations_are_those_of_the_published_model() -> None:
    published = encoder_specs()["wsi-llava"]

    whole = flop_per_tile(published)
    linear = sum(product.flop for product in linear_products(published)) / published.batch_tiles

    # 2 per multiplication: 297 GFLOP in the MLPs, 149 in the other linear layers, attention and patch embedding beside
    assert whole == pytest.approx(456.2e9, rel=2e-3)
    assert linear == pytest.approx(446e9, rel=2e-3)


def test_a_batchs_products_are_its_linear_layers() -> None:
    # 5 tokens a tile, 48 wide, SwiGLU of 256 and half of it, four blocks
    assert linear_products(spec_of(batch_tiles=2)) == [
        Product(10, 48, 144, 4),
        Product(10, 48, 48, 4),
        Product(10, 48, 256, 4),
        Product(10, 128, 48, 4),
    ]


def test_products_run_as_often_as_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[torch.Size, torch.Size]] = []
    monkeypatch.setattr(torch, "mm", lambda left, right: shapes.append((left.shape, right.shape)))
    products = Products([*square(16, 2), Product(3, 4, 5)], torch.float32, CPU)

    products.run()

    assert shapes == [((16, 16), (16, 16))] * 2 + [((3, 4), (4, 5))]
    assert products.flop == 2 * 2 * 16**3 + 2 * 3 * 4 * 5


def test_shares_are_of_the_same_round() -> None:
    plan = Plan("small", spec_of(batch_tiles=4), CPU, batches=2, rounds=2)
    flop = flop_per_tile(plan.spec)

    def costs(*seconds: float) -> list[Cost]:
        return [Cost(wall, wall) for wall in seconds]

    turns = Turns({SQUARE: costs(1, 2), OWN_PRODUCTS: costs(2, 4), EAGER: costs(4, 8)}, [1.0])
    rate = rates_of(plan, turns, {SQUARE: 8 * flop, OWN_PRODUCTS: 8 * flop})[2]

    assert rate.method == EAGER
    assert (rate.tiles_per_s.least, rate.tiles_per_s.most) == (1, 2)
    assert rate.tflop_per_s.most == pytest.approx(2 * flop / 1e12)
    assert (rate.shares[SQUARE].least, rate.shares[SQUARE].most) == (0.25, 0.25)
    assert rate.shares[OWN_PRODUCTS].median == 0.5


def test_random_weights_tell_tiles_apart_far_more_than_16_bits_do(tmp_path: Path) -> None:
    spec = encoder_specs()["vit_small"].model_copy(update={"dtype": "bfloat16", "batch_tiles": 2})
    write_random_weights(tmp_path / "w.safetensors", spec)
    usual = Usual(spec, tmp_path / "w.safetensors", CPU)
    tiles = tissue_like_tiles(2, 224)[None]

    exact, features = usual.exact(tiles), usual.encode(tiles)()

    between = cosines(exact[:1], exact[1:])[0]
    assert 1 - cosines(features, exact).min() < 0.02 * (1 - between)
    assert between < tile_encoder.LEAST_COSINE
