"""The multipart form of an upload: which bytes of a body belong to which file of the slide."""

from collections.abc import Mapping

from python_multipart.multipart import parse_options_header

from encoders.errors import UnsupportedFormat
from server.errors import InvalidRequest
from server.uploads.one_slide import MOST_FILES, SourceFile, require_one_tree
from server.uploads.staged_parts import MAX_BOUNDARY_BYTES, StagedParts
from server.uploads.upload_files import UploadBudget

_FIELD = "file"
_ASK_FOR_FILE = "Send the slide as multipart/form-data with one field named `file`."


class _FilesAlone:
    """A form of nothing but `file`."""

    most_parts = MOST_FILES

    def name_of(self, headers: Mapping[bytes, bytes]) -> str:
        """See PartsPolicy."""
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", errors="replace")
        if field != _FIELD:
            raise InvalidRequest(f"The form has no field {field[:40]!r}; send the slide as the one field named `file`.")
        return options.get(b"filename", b"").decode("utf-8", errors="replace").replace("\\", "/")


def slide_form(content_type: str, room: UploadBudget) -> StagedParts:
    """What receives the form; raises InvalidRequest for another kind of body."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        raise InvalidRequest(_ASK_FOR_FILE)
    return StagedParts(boundary, _FilesAlone(), room)


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
