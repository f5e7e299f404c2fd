"""The reader child's end of the conversation with its parent."""

import os
import select
from io import FileIO
from typing import BinaryIO, Self

from encoders.tiling.isolation.reader_protocol import Message, frame_head, read_frame


class ChildPipes:
    """Frames in, frames out; both block."""

    def __init__(self, requests: FileIO, replies: BinaryIO) -> None:
        """`requests` is unbuffered, so that a request that has come is seen in the pipe."""
        self._requests = requests
        self._replies = replies

    @classmethod
    def take_standard_streams(cls) -> Self:
        """Moves the pipes to private descriptors, so that nothing a parser prints gets in among the frames."""
        requests, replies = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        return cls(os.fdopen(requests, "rb", buffering=0), os.fdopen(replies, "wb"))

    def request_is_there(self) -> bool:
        """Whether `next_request` would not wait: a request has begun to arrive, or the parent has closed its end."""
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        return bool(poll.poll(0))

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
        buffer = bytearray(size)
        filled = 0
        while filled < size:
            got = self._requests.readinto(memoryview(buffer)[filled:])
            if not got:
                raise SystemExit(0)
            filled += got
        return buffer
