"""Tiles per second of the tile encoder, and which share of the device's matrix products that is.

benchmarks/tile_encoder.py as it is, so that these numbers and those of `make bench` are the same.
"""

import json
from typing import Any

from benchmarks import tile_encoder
from benchmarks.gpu_check.gap import COMPILING, PRODUCTS_ALONE, REACHED, TARGET
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from benchmarks.tile_encoder_methods import COMPILED, EAGER
from benchmarks.tile_encoder_rates import OWN_PRODUCTS, SQUARE
from encoders.tile_encoder.compile_model import keep_compiled_code_in


def check(setting: Setting) -> Finding:
    """All methods in turns in one process; a share is of the same round's ceiling."""
    keep_compiled_code_in(setting.scratch / "compiled")
    path = setting.scratch / "tile_encoder_rates.json"
    size = ["--batch", "2", "--batches", "1", "--rounds", "1"] if setting.small else ["--float8", "--rounds", "3"]
    model = [] if setting.small else ["--model", "wsi-llava", "--batches", "8"]
    if tile_encoder.main(["--device", setting.device, "--json", str(path), *model, *size]):
        raise RuntimeError("a method's features are not the model's, or it does not run; the log says which")
    record = json.loads(path.read_text())
    return Finding(numbers=tuple(_numbers(record)), facts={"model": record["model"], "dtype": record["spec"]["dtype"]})


def _numbers(record: dict[str, Any]) -> list[Number]:
    rates = {rate["method"]: rate for rate in record["rates"]}
    ours = rates.get(COMPILED, rates[EAGER])
    numbers = [
        Number(
            name=REACHED,
            value=ours["shares"][SQUARE]["median"],
            target=TARGET,
            source="0.75 of what this device multiplies in the same round",
        ),
        Number(name=PRODUCTS_ALONE, value=rates[OWN_PRODUCTS]["shares"][SQUARE]["median"]),
    ]
    if COMPILED in rates:
        speedup = rates[COMPILED]["tiles_per_s"]["median"] / rates[EAGER]["tiles_per_s"]["median"]
        numbers.append(Number(name=COMPILING, value=speedup))
    for name, rate in rates.items():
        numbers.append(Number(name=f"{name}, products", value=rate["tflop_per_s"]["median"], unit="TFLOP/s"))
        if name not in (SQUARE, OWN_PRODUCTS):
            numbers.append(Number(name=name, value=rate["tiles_per_s"]["median"], unit="tiles/s"))
    return numbers
