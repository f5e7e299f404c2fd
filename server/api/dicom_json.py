"""The DICOM JSON model (PS3.18, annex F) of answers; attributes by their tags in hex."""

from collections.abc import Sequence
from typing import Any

from server.flow.receive_series import TakenInstance

DICOM_JSON = "application/dicom+json"
_RETRIEVE_URL, _SOP_CLASS, _SOP_INSTANCE = "00081190", "00081150", "00081155"
_WARNING_REASON, _FAILURE_REASON = "00081196", "00081197"
_FAILED, _REFERENCED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
DICOM_SCHEMAS: dict[str, Any] = {
    "DicomInstances": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "format": "binary"},
        "description": "Parts of `application/dicom`, each an instance as a file has it (DICOM PS3.10).",
    },
    "DicomFrames": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "format": "binary"},
        "description": "Parts, each a frame as it is stored.",
    },
    "DicomDataset": {
        "type": "object",
        "description": "Attributes in the DICOM JSON model (PS3.18, annex F), by their tags in hex.",
        "additionalProperties": {"$ref": "#/components/schemas/DicomAttribute"},
        "examples": [{"00081190": {"vr": "UR"}}],
    },
    "DicomAttribute": {
        "type": "object",
        "description": "An attribute: its value representation and its values, which are absent when it has none.",
        "required": ["vr"],
        "properties": {
            "vr": {"type": "string", "pattern": "^[A-Z]{2}$", "examples": ["UI"]},
            "Value": {"type": "array", "items": {}, "minItems": 1},
            "InlineBinary": {"type": "string", "description": "Bytes in Base64, in place of values."},
        },
    },
}


def stow_answer(taken: Sequence[TakenInstance]) -> dict[str, Any]:
    """What a request to store gets (PS3.18, 10.5.3): Referenced SOP Sequence is what is kept, Failed SOP Sequence what
    is not, and why; Other Failures Sequence, what is no instance."""
    kept = [_referenced(it) for it in taken if it.reason is None or it.reason.is_warning]
    failed = [
        _referenced(it)
        for it in taken
        if it.instance is not None and it.reason is not None and not it.reason.is_warning
    ]
    unknown = [{_FAILURE_REASON: attribute("US", int(it.reason or 0))} for it in taken if it.instance is None]
    sequences: dict[str, list[dict[str, Any]]] = {_REFERENCED: kept, _FAILED: failed, _OTHER_FAILURES: unknown}
    answer = {_RETRIEVE_URL: attribute("UR")}
    for tag, items in sequences.items():
        if items:
            answer[tag] = attribute("SQ", *items)
    return answer


def stow_status(taken: Sequence[TakenInstance]) -> int:
    """200 when all is kept as it came, 409 when nothing is, else 202."""
    if all(it.reason is None for it in taken):
        return 200
    return 202 if any(it.reason is None or it.reason.is_warning for it in taken) else 409


def _referenced(taken: TakenInstance) -> dict[str, Any]:
    instance, reason = taken.instance, taken.reason
    if instance is None:
        return {}
    item = {_SOP_CLASS: attribute("UI", instance.sop_class), _SOP_INSTANCE: attribute("UI", instance.sop_instance)}
    if reason is not None:
        item[_WARNING_REASON if reason.is_warning else _FAILURE_REASON] = attribute("US", int(reason))
    return item


def attribute(vr: str, *values: Any) -> dict[str, Any]:
    """One with these values."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}
