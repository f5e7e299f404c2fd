"""A manifest as TOML text, for the copy that an installation keeps with what it recorded."""

import json
import re
from typing import Any

from model_store.manifest import Manifest

_HEADING = "# Written when this model was converted; what was not known beforehand is recorded under downloads.\n"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def manifest_text(manifest: Manifest) -> str:
    """TOML that `parse_manifest` reads back as the same manifest."""
    said = manifest.model_dump(mode="json", exclude_none=True, exclude=None if manifest.inputs else {"inputs"})
    return _HEADING + "".join(_table_lines("", said))


def _table_lines(path: str, table: dict[str, Any]) -> list[str]:
    """Its own keys first, then its tables: TOML gives every key to the table named last."""
    lines = [f"\n[{path}]\n"] if path else []
    lines += [f"{_key(key)} = {_value(value)}\n" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _table_lines(f"{path}.{_key(key)}" if path else _key(key), value)
    return lines


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    # A JSON string, number, boolean or array of them is the same in TOML.
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
