"""Whether what is stored of a DICOM slide is what `Accept` allows (PS3.18, 8.7). Nothing is transcoded: it is sent in
the transfer syntax in which it came."""

from collections.abc import Iterable
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from server.api.dicom_json import DICOM_JSON
from server.errors import NotAcceptable

DICOM, OCTETS, MULTIPART = "application/dicom", "application/octet-stream", "multipart/related"
_JPEG, _JPEG_LS, _JPEG_2000 = "image/jpeg", "image/jls", "image/jp2"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
# PS3.18, table 8.7.3-5.
_FRAME_TYPES = dict.fromkeys(_NATIVE, OCTETS) | {
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": _JPEG,
    "1.2.840.10008.1.2.4.57": _JPEG,
    "1.2.840.10008.1.2.4.70": _JPEG,
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,
    "1.2.840.10008.1.2.4.90": _JPEG_2000,
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
FRAME_TYPES = tuple(sorted(set(_FRAME_TYPES.values())))
# Beyond it nobody means what they say.
_MAX_RANGES = 64


@dataclass(frozen=True)
class _Range:
    """One of the media types of `Accept`; `part` and `syntax` are empty where it does not say them."""

    media_type: str
    part: str
    syntax: str


def require_json(accept: str) -> None:
    """Raises NotAcceptable where DICOM JSON is not wanted."""
    wanted = ("*/*", "application/*", DICOM_JSON, "application/json")
    if not any(it.media_type in wanted for it in _ranges(accept)):
        raise NotAcceptable(f"This is sent as {DICOM_JSON}; say so in `Accept`.")


def require_files(accept: str, syntaxes: Iterable[str]) -> None:
    """Raises NotAcceptable where files in all of these transfer syntaxes are not wanted."""
    for syntax in set(syntaxes):
        if not any(_takes(it, DICOM, syntax) for it in _ranges(accept)):
            raise NotAcceptable(
                f'Instances are sent as {MULTIPART}; type="{DICOM}" in the transfer syntax in which they came, here '
                f"{syntax}; ask for that, or for transfer-syntax=*."
            )


def frame_type(accept: str, syntax: str) -> str:
    """The media type of a frame.

    Raises:
        NotAcceptable: it is not wanted.
    """
    media_type = _FRAME_TYPES.get(syntax, OCTETS)
    if not any(_takes(it, media_type, syntax) for it in _ranges(accept)):
        raise NotAcceptable(
            f'Frames are sent as {MULTIPART}; type="{media_type}", as they came, transfer syntax {syntax}; ask for '
            "that, or for */*."
        )
    return media_type


def _takes(it: _Range, part: str, syntax: str) -> bool:
    if it.media_type not in ("*/*", "multipart/*", MULTIPART):
        return False
    wanted = ("", "*/*", part, f"{part.partition('/')[0]}/*")
    return it.part in wanted and it.syntax in ("", "*", syntax)


def _ranges(accept: str) -> list[_Range]:
    found = []
    for said in _split(accept or "*/*")[:_MAX_RANGES]:
        media_type, options = parse_options_header(said)
        if options.get(b"q", b"1").rstrip(b"0.") == b"":  # not wanted at all
            continue
        part, syntax = (options.get(name, b"").decode("latin-1") for name in (b"type", b"transfer-syntax"))
        found.append(_Range(media_type.decode("latin-1").lower(), part.lower(), syntax))
    return found


def _split(accept: str) -> list[str]:
    """At commas that stand in no quotes."""
    parts, is_quoted = [""], False
    for character in accept:
        is_quoted ^= character == '"'
        if character == "," and not is_quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts
