"""The multipart form of an upload: which bytes of a body belong to which file of the slide."""

from collections.abc import Mapping
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header

from encoders.errors import UnsupportedFormat
from server.errors import InvalidRequest
from server.uploads.one_slide import MOST_FILES, SourceFile, require_one_tree
from server.uploads.slide_metadata import METADATA_FIELDS, said_metadata
from server.uploads.staged_parts import MAX_BOUNDARY_BYTES, StagedParts
from server.uploads.upload_files import UploadBudget

_FIELD = "file"
_ASK_FOR_FILE = "Send the slide as multipart/form-data with one field named `file`."


class _FilesAndTexts:
    """A form of `file`, and where `describes` of what is said of the slide."""

    most_parts = MOST_FILES

    def __init__(self, describes: bool) -> None:
        self._fields = METADATA_FIELDS if describes else ()
        self.said: dict[str, str] = {}

    def text_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        """See PartsPolicy."""
        field = _field_of(headers)
        return field if field in self._fields else None

    def end_text(self, name: str, text: str) -> None:
        """See PartsPolicy."""
        if name in self.said:
            raise InvalidRequest(f"The form has the field `{name}` twice; send it once.")
        self.said[name] = text
        said_metadata(self.said)  # before gigabytes come behind it

    def name_of(self, headers: Mapping[bytes, bytes]) -> str:
        """See PartsPolicy."""
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        field = _field_of(headers)
        if field != _FIELD:
            others = f", beside {', '.join(f'`{it}`' for it in self._fields)}" if self._fields else ""
            raise InvalidRequest(
                f"The form has no field {field[:40]!r}; send the slide as the one field named `file`{others}."
            )
        return options.get(b"filename", b"").decode("utf-8", errors="replace").replace("\\", "/")


def _field_of(headers: Mapping[bytes, bytes]) -> str:
    _, options = parse_options_header(headers.get(b"content-disposition", b""))
    return options.get(b"name", b"").decode("utf-8", errors="replace")


@dataclass(frozen=True)
class SlideForm:
    """A form that is being received, and what it has said of its slide so far."""

    parts: StagedParts
    said: Mapping[str, str]


def slide_form(content_type: str, room: UploadBudget, *, describes: bool) -> SlideForm:
    """What receives the form, which may say what its slide is about if it `describes` one; raises InvalidRequest for
    another kind of body."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        raise InvalidRequest(_ASK_FOR_FILE)
    policy = _FilesAndTexts(describes)
    return SlideForm(StagedParts(boundary, policy, room), policy.said)


def files_of(form: StagedParts) -> tuple[SourceFile, ...]:
    """The slide's files, once all is written; raises InvalidRequest or UnsupportedFormat."""
    if not form.is_complete:
        raise InvalidRequest("The upload was cut off before its end; send it again.")
    if not form.received:
        raise InvalidRequest(_ASK_FOR_FILE)
    files = tuple(file.source_file() for file in form.received)
    if any(file.size_bytes == 0 for file in files):
        raise UnsupportedFormat("A file is empty; send a whole-slide image.")
    if len(files) > 1:
        require_one_tree([file.relative_path for file in files])
    return files
