"""The multipart form of an upload: which bytes of a body belong to which file of the slide."""

from python_multipart.multipart import MultipartParser, parse_options_header

from encoders.errors import UnsupportedFormat
from server.errors import InvalidRequest
from server.uploads.one_slide import MOST_FILES, SourceFile, require_one_tree
from server.uploads.upload_files import Batch, StagedFile, UploadBudget

_FIELD = "file"
_ASK_FOR_FILE = "Send the slide as multipart/form-data with one field named `file`."
# Big enough that the disk does not wait for the next one, small enough for many uploads at once, each of which holds
# two: 1 MiB gave 0.65–0.76 of the disk's speed, 4 MiB 0.80–0.96 (loadtests/big_upload.py).
_WRITE_BYTES = 4 * 2**20
# A file name may be absurdly long; it is shortened, not refused. What is longer still is no file name.
_MAX_HEADER_BYTES = 64 * 1024
# RFC 2046 allows 70; the parser, 256.
_MAX_BOUNDARY_BYTES = 256
_MAX_OPEN_FILES = 16
# Boundaries, headers of parts, and what stands before the first and behind the last: in all, and more with every file.
_MAX_OTHER_BYTES = 2**20
_OTHER_BYTES_OF_A_FILE = 2048


class SlideForm:
    """A multipart form of nothing but `file`. Raises FormParserError."""

    def __init__(self, content_type: str, room: UploadBudget) -> None:
        self._room = room
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._open: list[StagedFile] = []
        self._received: list[StagedFile] = []
        self._current: StagedFile | None = None
        self._complete = False
        self._raw_bytes = self._content_bytes = self._pending_bytes = 0
        self._parser = MultipartParser(
            _boundary(content_type),
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_size=_MAX_HEADER_BYTES,
        )

    @property
    def wants_writing(self) -> bool:
        """Enough bytes for one go, or many small files that would each keep a descriptor."""
        return self._pending_bytes >= _WRITE_BYTES or len(self._open) > _MAX_OPEN_FILES

    def feed(self, chunk: bytes) -> None:
        """The body's next bytes; raises InvalidRequest or UploadTooLarge too."""
        self._parser.write(chunk)
        self._raw_bytes += len(chunk)
        allowed_bytes = _MAX_OTHER_BYTES + _OTHER_BYTES_OF_A_FILE * len(self._received)
        if self._raw_bytes - self._content_bytes > allowed_bytes:
            raise InvalidRequest(
                "The form has too much data outside its files; send the slide as the field `file` alone."
            )

    def take(self) -> Batch:
        """What is pending of every file."""
        pieces = [file.take() for file in self._open]
        self._open = [file for file in self._open if not file.is_complete]
        self._pending_bytes = 0
        return Batch(pieces, self._room)

    def close(self) -> None:
        """Closes files that are not complete."""
        for file in self._received:
            file.close()

    def files(self) -> tuple[SourceFile, ...]:
        """The slide's files, once all is written; raises InvalidRequest or UnsupportedFormat."""
        if not self._complete:
            raise InvalidRequest("The upload was cut off before its end; send it again.")
        if not self._received:
            raise InvalidRequest(_ASK_FOR_FILE)
        files = tuple(file.source_file() for file in self._received)
        if any(file.size_bytes == 0 for file in files):
            raise UnsupportedFormat("A file is empty; send a whole-slide image.")
        if len(files) > 1:
            require_one_tree([file.relative_path for file in files])
        return files

    def _end_header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", errors="replace")
        if field != _FIELD:
            raise InvalidRequest(f"The form has no field {field[:40]!r}; send the slide as the one field named `file`.")
        if len(self._received) >= MOST_FILES:
            raise InvalidRequest(f"A slide of more than {MOST_FILES} files is not accepted.")
        name = options.get(b"filename", b"").decode("utf-8", errors="replace").replace("\\", "/")
        self._current = StagedFile(self._room.folder / str(len(self._received)), name, self._room)
        self._open.append(self._current)
        self._received.append(self._current)

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._current is not None:
            self._current.add(data[start:end])
            self._content_bytes += end - start
            self._pending_bytes += end - start

    def _end_part(self) -> None:
        if self._current is not None:
            self._current.is_complete = True
        self._current = None

    def _end(self) -> None:
        self._complete = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= _MAX_BOUNDARY_BYTES:
        raise InvalidRequest(_ASK_FOR_FILE)
    return boundary
