"""Manifests from before models were composed: read as what they always meant (docs/decisions/0039).

A converted model keeps the manifest of its day. Weights, config and tokenizer beside it are unchanged and so is the
encoder id, so there is nothing to convert again.
"""

from typing import Any, Final

_TABLES: Final = ("tiling", "tile_encoder", "slide_encoder", "llm")
# What had one possible value, and is now said by a kind.
_SAID_BY_KINDS: Final = {"placeholder": "<image>"}


def as_composed(said: dict[str, Any]) -> dict[str, Any]:
    """The manifest in today's tables; one that is in them already, or in neither form, as it stands."""
    if "inputs" in said or not all(isinstance(said.get(table), dict) for table in _TABLES):
        return said
    tiling, tile_encoder, slide_encoder, llm = (dict(said[table]) for table in _TABLES)
    if slide_encoder.pop("architecture", None) != "longnet":
        return said
    if any(llm.pop(field, value) != value for field, value in _SAID_BY_KINDS.items()):
        return said
    kept = {name: value for name, value in said.items() if name not in _TABLES}
    return {
        **kept,
        "inputs": {"tiles": {"tiling": tiling, "tile_encoder": {"kind": "timm", **tile_encoder}}},
        "slide_stage": {"kind": "longnet-pool", **slide_encoder},
        "projector": {"kind": "mlp", **_taken(llm, {"projector_width": "width"})},
        "prompt": {"kind": "llava", **_taken(llm, {"prompt_template": "template"})},
        "llm": llm,
    }


def _taken(table: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Fields that moved, out of the table and under their new names."""
    return {new: table.pop(old) for old, new in names.items() if old in table}
