"""The query of a search for DICOM slides (PS3.18, 8.3.4): filters by keyword or tag, and which attributes to send."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import QueryParams

from encoders.dicom.searched_attributes import SEARCHED_ATTRIBUTES
from server.errors import InvalidRequest
from server.slides.instance_search import MODALITIES_IN_STUDY, STUDY_INSTANCES, STUDY_SERIES

_TAGS = {it.keyword: it.tag for it in SEARCHED_ATTRIBUTES} | {"ModalitiesInStudy": MODALITIES_IN_STUDY}
FILTERS = frozenset(_TAGS) | frozenset(_TAGS.values())
_MORE = frozenset(it.tag for it in SEARCHED_ATTRIBUTES if not it.basic)
_KNOWN = frozenset(_TAGS.values()) | {STUDY_SERIES, STUDY_INSTANCES}
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_MAX_CHARS = 256
_RANGE_SCHEMA = "^([0-9.]{1,16}(-[0-9.]{0,16})?|-[0-9.]{1,16})?$"
_FORMS = dict.fromkeys(("DA", "TM"), _RANGE_SCHEMA) | dict.fromkeys(("IS", "US", "UL"), "^([+-]?[0-9]{1,12})?$")


def _schema(tag: str) -> dict[str, Any]:
    form = _FORMS.get(next((it.vr for it in SEARCHED_ATTRIBUTES if it.tag == tag), ""))
    return {"type": "string", "maxLength": _MAX_CHARS} | ({} if form is None else {"pattern": form})


# For `openapi_extra=`: FILTERS, as one object of them all.
FILTERS_PARAMETER: dict[str, Any] = {
    "name": "filters",
    "in": "query",
    "style": "form",
    "explode": True,
    "description": "Attributes by keyword, or by tag in hex, each with the value that it must have: in texts `*` and "
    "`?` stand for anything, dates and times may be ranges (`20260101-20261231`), UIDs lists with commas.",
    "schema": {
        "type": "object",
        "properties": {keyword: _schema(tag) for keyword, tag in sorted(_TAGS.items())},
        "additionalProperties": False,
        "examples": [{"PatientID": "P-17"}],
    },
}


def filters_of(query: QueryParams) -> dict[str, str]:
    """The filters by tag.

    Raises:
        InvalidRequest: one comes by its keyword and its tag, or is too long.
    """
    found: dict[str, str] = {}
    for name, value in query.items():
        if name not in FILTERS:
            continue
        tag = _TAGS.get(name, name)
        if tag in found:
            raise InvalidRequest(f"The filter {name!r} comes twice, by its keyword and by its tag; send it once.")
        if len(value) > _MAX_CHARS:
            raise InvalidRequest(f"The filter {name!r} is longer than {_MAX_CHARS} characters.")
        found[tag] = value
    return found


def fields_of(includefield: Sequence[str], filters: Mapping[str, str]) -> tuple[frozenset[str], list[str]]:
    """The tags of attributes that are sent beside the usual ones, and what of `includefield` there is none of."""
    asked = [name for text in includefield for name in text.split(",") if name]
    if "all" in asked:
        return _MORE, []
    tags = {name: _TAGS.get(name, name.upper() if _TAG.fullmatch(name) else "") for name in asked}
    unknown = [name for name, tag in tags.items() if tag not in _KNOWN]
    return frozenset(tags.values()) | frozenset(filters), unknown


def chosen(attributes: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    """What is sent of an item."""
    return {tag: it for tag, it in attributes.items() if tag not in _MORE or tag in fields}
