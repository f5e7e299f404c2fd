"""The multipart forms that take files; `server.uploads` reads them as they come, so FastAPI sees no fields."""

from typing import Any

from server.api.contract.slide_metadata import SAID_OF_SLIDES
from server.uploads.slide_metadata import MOST_LABELS, MOST_METADATA_CHARS

_FILE = {"type": "string", "format": "binary"}
_SAID = {field: (MOST_METADATA_CHARS, told) for field, told in SAID_OF_SLIDES.items()} | {
    "labels": (MOST_LABELS * (MOST_METADATA_CHARS + 1), "Words of your own, with commas between.")
}
UPLOAD_SCHEMAS: dict[str, Any] = {
    "SlideUpload": {
        "type": "object",
        "description": "A slide, or precomputed features in place of one.",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {
                "type": "array",
                "minItems": 1,
                "items": _FILE,
                "description": "The slide's file. Repeat the field for a slide of several files (a DICOM series, "
                "MIRAX): their names are then paths within the slide.",
            },
            **{
                field: {"type": "string", "maxLength": most, "description": told}
                for field, (most, told) in _SAID.items()
            },
        },
    },
    "FeaturesUpload": {
        "type": "object",
        "description": "Precomputed features of a slide.",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {"file": _FILE | {"description": "HDF5 with `features` and `coords`, or a .pt of tensors."}},
    },
}


def takes_form(schema: str) -> dict[str, Any]:
    """For `openapi_extra=` of a route that reads the form itself."""
    form = {"multipart/form-data": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": True, "content": form}}
