"""HL7's own JSON schema of FHIR R4, and what it does not hold."""

import gzip
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema_rs

_FILE = Path(__file__).resolve().parents[1] / "server" / "reports" / "fhir_r4.schema.json.gz"


@lru_cache(1)
def _validator() -> Any:
    schema = json.loads(gzip.decompress(_FILE.read_bytes()))
    assert schema["id"] == "http://hl7.org/fhir/json-schema/4.0"
    # Whole, it names no first failure: every resource is tried. A resource's own definition does.
    return schema


@lru_cache
def _of_type(name: str) -> Any:
    return jsonschema_rs.Draft6Validator({"$ref": f"#/definitions/{name}", "definitions": _validator()["definitions"]})


def require_r4(resource: dict[str, Any]) -> None:
    """The resource, and each contained one by its own type, has R4's structure; and what the schema leaves open: each
    contained resource is referred to, and each reference to one leads there (dom-3, ref-1)."""
    found = [resource, *resource.get("contained", ())]
    for one in found:
        errors = [
            f"{'/'.join(map(str, it.instance_path))}: {it.message}"
            for it in _of_type(one["resourceType"]).iter_errors(one)
        ]
        assert errors == [], errors[:3]
    text = json.dumps(resource)
    references = set(re.findall(r'"reference": "#([^"]+)"', text))
    assert references == {it["id"] for it in resource.get("contained", ())}
