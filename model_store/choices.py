"""Choices that an operator has without another manifest: how tiles are multiplied and reduced.

Both change the numbers, so both are fields of the manifest and thereby part of the encoder id. The API and the workers
must be given the same choices: they name embeddings by that id.
"""

from dataclasses import replace
from typing import Any, get_args

from model_store.contracts.fields import Dtype
from model_store.contracts.tile_encoder import Reduction
from model_store.errors import ModelError
from model_store.installed import InstalledModel

FLOAT8 = "float8"
TILE_DTYPES = (*get_args(Dtype), FLOAT8)
TILE_REDUCTIONS = get_args(Reduction)


def with_choices(model: InstalledModel, tile_dtype: str = "", tile_reduction: str = "") -> InstalledModel:
    """The model with its tile encoders in another dtype and its tiles reduced another way; "" keeps the manifest's.

    "float8" leaves the manifest's dtype for all that is not multiplied in 8 bits. Raises ModelError for another word.
    """
    dtype = _dtype_fields(_known(tile_dtype, TILE_DTYPES, "dtype"))
    reduction = {"reduction": tile_reduction} if _known(tile_reduction, TILE_REDUCTIONS, "reduction") else {}
    return replace(model, manifest=model.manifest.with_inputs(tiling=reduction, tile_encoder=dtype))


def _dtype_fields(tile_dtype: str) -> dict[str, Any]:
    if not tile_dtype:
        return {}
    return {"matmul": FLOAT8} if tile_dtype == FLOAT8 else {"dtype": tile_dtype, "matmul": "dtype"}


def _known(word: str, words: tuple[str, ...], what: str) -> str:
    if word and word not in words:
        raise ModelError(f"{word!r} is no {what} of tiles; choose one of {', '.join(words)}, or none.")
    return word
