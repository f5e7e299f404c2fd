"""The reader child's end of the conversation with its parent."""

import os
from typing import BinaryIO, Self

from encoders.tiling.reader_protocol import Message, frame_head, read_frame


class ChildPipes:
    """Frames in, frames out; both block, which is what bounds the child's reading ahead."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._replies = replies

    @classmethod
    def take_standard_streams(cls) -> Self:
        """Moves the pipes to private descriptors, so that nothing a parser prints gets in among the frames."""
        requests, replies = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        return cls(os.fdopen(requests, "rb"), os.fdopen(replies, "wb"))

    def next_request(self) -> bytes:
        """The next request's header; ends the process when the parent has closed its end."""
        header, _ = read_frame(self._read_exactly, max_body_bytes=0)
        return bytes(header)

    def reply(self, message: Message, body: memoryview) -> None:
        """One frame, its body uncopied."""
        self._replies.write(frame_head(message, body.nbytes))
        self._replies.write(body)
        self._replies.flush()

    def _read_exactly(self, size: int) -> bytearray:
        got = self._requests.read(size)
        if len(got) < size:
            raise SystemExit(0)
        return bytearray(got)
