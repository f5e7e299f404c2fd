"""A multipart body becomes files of a folder, part by part, and a few short texts; of files only what is about to be
written is in memory."""

from collections.abc import Mapping
from typing import Protocol

from python_multipart.multipart import MultipartParser

from server.errors import InvalidRequest
from server.uploads.upload_files import Batch, StagedFile, UploadBudget

# Big enough that the disk does not wait for the next one, small enough for many uploads at once, each of which holds
# two: 1 MiB gave 0.65–0.76 of the disk's speed, 4 MiB 0.80–0.96 (loadtests/big_upload.py).
_WRITE_BYTES = 4 * 2**20
# A file name may be absurdly long; it is shortened, not refused. What is longer still is no file name.
_MAX_HEADER_BYTES = 64 * 1024
_MAX_OPEN_FILES = 16
# Boundaries, headers of parts, and what stands before the first and behind the last: in all, and more with every file.
_MAX_OTHER_BYTES = 2**20
_OTHER_BYTES_OF_A_FILE = 2048
# Every text that a form may hold is a few hundred characters.
_MAX_TEXT_BYTES = 16 * 1024
# RFC 2046 allows 70; the parser, 256.
MAX_BOUNDARY_BYTES = 256


class PartsPolicy(Protocol):
    """What a body may hold."""

    most_parts: int

    def text_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The name of a part with these headers, whose names are in lower case, that is a short text; None for a
        file."""

    def end_text(self, name: str, text: str) -> None:
        """A text that has come to its end; raises InvalidRequest for one that is not taken."""

    def name_of(self, headers: Mapping[bytes, bytes]) -> str:
        """What a part with these headers, whose names are in lower case, is called; raises InvalidRequest for a part
        that does not belong."""


class StagedParts:
    """A multipart body whose parts are files, and short texts. Raises FormParserError."""

    def __init__(self, boundary: bytes, policy: PartsPolicy, room: UploadBudget) -> None:
        self._policy = policy
        self._room = room
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._open: list[StagedFile] = []
        self._current: StagedFile | None = None
        self._text: tuple[str, bytearray] | None = None
        self._raw_bytes = self._content_bytes = self._pending_bytes = 0
        self.received: list[StagedFile] = []
        self.is_complete = False
        self._parser = MultipartParser(
            boundary,
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
        allowed_bytes = _MAX_OTHER_BYTES + _OTHER_BYTES_OF_A_FILE * len(self.received)
        if self._raw_bytes - self._content_bytes > allowed_bytes:
            raise InvalidRequest("The body has too much data outside its files; send the files alone.")

    def take(self) -> Batch:
        """What is pending of every file."""
        pieces = [file.take() for file in self._open]
        self._open = [file for file in self._open if not file.is_complete]
        self._pending_bytes = 0
        return Batch(pieces, self._room)

    def close(self) -> None:
        """Closes files that are not complete."""
        for file in self.received:
            file.close()

    def _end_header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _begin_content(self) -> None:
        text = self._policy.text_of(self._headers)
        if text is not None:
            self._text = (text, bytearray())
            return
        name = self._policy.name_of(self._headers)
        if len(self.received) >= self._policy.most_parts:
            raise InvalidRequest(f"More than {self._policy.most_parts} files in one request are not accepted.")
        self._current = StagedFile(self._room.folder / str(len(self.received)), name, self._room)
        self._open.append(self._current)
        self.received.append(self._current)

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            name, content = self._text
            content += data[start:end]
            if len(content) > _MAX_TEXT_BYTES:
                raise InvalidRequest(f"The form's field `{name}` is too long; shorten it.")
        elif self._current is not None:
            self._current.add(data[start:end])
            self._content_bytes += end - start
            self._pending_bytes += end - start

    def _end_part(self) -> None:
        if self._text is not None:
            name, content = self._text
            self._policy.end_text(name, content.decode(errors="replace"))
            self._text = None
        elif self._current is not None:
            self._current.is_complete = True
        self._current = None

    def _end(self) -> None:
        self.is_complete = True
