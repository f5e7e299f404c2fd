"""Tiles per second of the tile encoder, and how much of what the device can multiply that is.

    python -m benchmarks.tile_encoder --json tile_encoder.json
    python -m benchmarks.tile_encoder --model wsi-llava --device cuda --float8 --json tile_encoder.json

Needs torch, timm, numpy, pydantic and safetensors, and no weights: random ones of the published size take the same
time. In one process, in turns: the device's matrix products, ours from uint8 tiles on the host to features on the host
(as it is, compiled, with 8-bit products), and timm with autocast from float32 tiles, as public pipelines run it.

No time counts of a method whose features are not those of the model in float32. Only 8-bit products are measured
however much they change the features of random weights, which the table shows; with real weights they have a gate.
TFLOP/s are the published model's operations, whatever of them is saved.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine, versions
from benchmarks.matrix_ceiling import Products, flop_per_tile, linear_products, square
from benchmarks.random_tile_encoder import SMALL, encoder_specs, write_random_weights
from benchmarks.take_turns import Cost, Turns, cost_of, take_turns
from benchmarks.tile_encoder_methods import COMPILED, EAGER, FLOAT8, USUAL, Encode, Ours, Usual, full_float32
from benchmarks.tile_encoder_rates import OWN_PRODUCTS, SQUARE, Agreement, Plan, Rate, rates_of, rates_table
from benchmarks.write_results import turns_record
from encoders.device import choose_device
from encoders.load_weights import TORCH_DTYPES
from encoders.tile_encoder.cpu_features import native_cpu_dtype
from encoders.tile_encoder.float8_gate import cosines
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles
from model_store.errors import ModelError

PACKAGES = ("torch", "timm", "numpy")
# Of every tile's features to the model in float32. Of 16 bits; 8 bits have a gate of their own.
LEAST_COSINE = 0.999


class WrongFeatures(Exception):
    """A method does not compute the model; nothing was measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON if asked to; 1 when a method is wrong."""
    options = _parser().parse_args(arguments)
    try:
        plan = plan_of(options)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "model.safetensors"
            write_random_weights(weights, plan.spec)
            record = measure(plan, weights, options)
    except (ModelError, WrongFeatures) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def plan_of(options: argparse.Namespace) -> Plan:
    """Defaults by device: a GPU gets the published ViT-g and its batch, a CPU what ends in two minutes."""
    device = choose_device(options.device)
    on_gpu = device.type == "cuda"
    name = options.model or ("wsi-llava" if on_gpu else SMALL)
    spec = encoder_specs()[name]
    dtype = options.dtype or (spec.dtype if on_gpu else native_cpu_dtype())
    batch_tiles = options.batch or (spec.batch_tiles if on_gpu else 8)
    spec = spec.model_copy(update={"dtype": dtype, "batch_tiles": batch_tiles})
    return Plan(name, spec, device, options.batches or (16 if on_gpu else 2), options.rounds)


def measure(plan: Plan, weights: Path, options: argparse.Namespace) -> dict[str, object]:
    """Everything in turns, after the features of everything were found right; prints as it goes."""
    print(
        f"{plan.model}, {plan.spec.dtype}, batches of {plan.spec.batch_tiles}, {_device_name(plan.device)}", flush=True
    )
    ours = _ours(plan, weights, options)
    usual = Usual(plan.spec, weights, plan.device)
    methods: dict[str, Ours | Usual] = {**ours, USUAL: usual}
    tiles = _tiles(plan)
    agreements = _agreements(methods, usual, tiles[:1])
    products = _products(plan)
    works = {name: each.run for name, each in products.items()} | _encodes(methods, tiles)
    turns = take_turns({name: _timed(work, plan.device) for name, work in works.items()}, plan.rounds)
    for each in ours.values():
        each.close()
    rates = rates_of(plan, turns, {name: each.flop for name, each in products.items()})
    ready_s = {name: each.ready_s for name, each in ours.items()}
    print(rates_table(rates, agreements, ready_s))
    return _record(plan, rates, agreements, ready_s, turns)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(encoder_specs()), help="default: wsi-llava on CUDA, else vit_small")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--dtype", choices=sorted(TORCH_DTYPES), help="default: the model's on CUDA, the CPU's own")
    parser.add_argument("--batch", type=int, help="tiles; default: the model's on CUDA, else 8")
    parser.add_argument("--batches", type=int, help="in a round; default: 16 on CUDA, else 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on CUDA")
    parser.add_argument("--float8", action="store_true", help="measure 8-bit products too")
    parser.add_argument("--json", type=Path, help="where to write every round, with versions")
    return parser


def _ours(plan: Plan, weights: Path, options: argparse.Namespace) -> dict[str, Ours]:
    """The variants that this device has."""
    compiles = plan.device.type == "cuda" if options.compile is None else options.compile
    ours = {EAGER: Ours(plan.spec, weights, plan.device, False)}
    if compiles:
        ours[COMPILED] = Ours(plan.spec, weights, plan.device, True)
        if not ours[COMPILED].encoder.compiled:
            ours.pop(COMPILED).close()
            print(f"{COMPILED} is left out: compiling failed, see above.")
    if options.float8:
        try:
            spec = plan.spec.model_copy(update={"matmul": "float8"})
            ours[FLOAT8] = Ours(spec, weights, plan.device, compiles)
        except ModelError as error:
            print(f"{FLOAT8} is left out: {error}")
    return ours


def _tiles(plan: Plan) -> NDArray[np.uint8]:
    """uint8 [batches, B, I, I, 3]; some tiles come again, which no method can tell."""
    distinct = min(plan.tiles, 256)
    tiles = tissue_like_tiles(distinct, plan.spec.input_px)[np.arange(plan.tiles) % distinct]
    return tiles.reshape(plan.batches, plan.spec.batch_tiles, *tiles.shape[1:])


def _agreements(methods: Mapping[str, Ours | Usual], usual: Usual, tiles: NDArray[np.uint8]) -> dict[str, Agreement]:
    """Raises WrongFeatures for a method whose features are not the model's, 8-bit products aside."""
    with full_float32():
        exact = usual.exact(tiles)
    agreements = {name: _agreement(encode(), exact) for name, encode in _encodes(methods, tiles).items()}
    for name, agreement in agreements.items():
        # Written so that NaN fails.
        if name != FLOAT8 and not agreement.least_cosine >= LEAST_COSINE:
            raise WrongFeatures(f"{name}: the cosine to the model in float32 is {agreement.least_cosine:.5f}.")
    return agreements


def _encodes(methods: Mapping[str, Ours | Usual], tiles: NDArray[np.uint8]) -> dict[str, Encode]:
    return {name: method.encode(tiles) for name, method in methods.items()}


def _agreement(features: NDArray[np.float32], exact: NDArray[np.float32]) -> Agreement:
    return Agreement(float(cosines(features, exact).min()), float(np.abs(features - exact).max()))


def _products(plan: Plan) -> dict[str, Products]:
    """As many operations as the model's in a round; a square of 8192 fills any GPU."""
    dtype = TORCH_DTYPES[plan.spec.dtype]
    own = [replace(each, count=each.count * plan.batches) for each in linear_products(plan.spec)]
    side = 8192 if plan.device.type == "cuda" else 1024
    count = max(1, sum(product.flop for product in own) // (2 * side**3))
    return {
        SQUARE: Products(square(side, count), dtype, plan.device),
        OWN_PRODUCTS: Products(own, dtype, plan.device),
    }


def _timed(work: Callable[[], object], device: torch.device) -> Callable[[int], Cost]:
    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    whole()  # once unmeasured: memory is allocated, kernels are chosen
    return lambda _: cost_of(whole)


def _record(
    plan: Plan, rates: list[Rate], agreements: Mapping[str, Agreement], ready_s: Mapping[str, float], turns: Turns
) -> dict[str, object]:
    return {
        "benchmark": "tile_encoder",
        "machine": machine() | {"device": _device_name(plan.device), "torch_threads": torch.get_num_threads()},
        "versions": versions(PACKAGES) | {"torch": torch.__version__, "cuda": torch.version.cuda},
        "model": plan.model,
        "spec": plan.spec.model_dump(mode="json"),
        "tiles_per_round": plan.tiles,
        "gflop_per_tile": flop_per_tile(plan.spec) / 1e9,
        "weights": "random",
        "agreement_with_float32": {name: asdict(agreement) for name, agreement in agreements.items()},
        "ready_s": ready_s,
        "rates": [asdict(rate) for rate in rates],
        "rounds": turns_record(turns),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(machine()["cpu"])


if __name__ == "__main__":
    sys.exit(main())
