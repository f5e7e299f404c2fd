"""Features files read as the child reads them, but by a thread of the test: a process that imports torch for each of a
matrix of files would spend a second on every one. What the child is confined by is not there."""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from encoders.precomputed.answer_for_features import serve
from encoders.precomputed.features_kind import features_kind
from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.reader_protocol import Open


class FeaturesThread:
    """Stands where `subprocess.Popen` stands for ReaderChannel."""

    pid = os.getpid()

    def __init__(self, command: Sequence[str], inherited: Sequence[int]) -> None:
        request_end, requests = os.pipe()
        replies, reply_end = os.pipe()
        self.stdin, self.stdout = os.fdopen(requests, "wb", buffering=0), os.fdopen(replies, "rb", buffering=0)
        self._thread = threading.Thread(target=_answer, args=(request_end, reply_end), daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Closed pipes end it."""
        self.stdin.close()
        self.stdout.close()

    def wait(self) -> None:
        """Until it has ended."""
        self._thread.join()


def _answer(request_end: int, reply_end: int) -> None:
    # A pipe that the test has closed is the end; so is what stands in a buffer then.
    with (
        suppress(SystemExit, BrokenPipeError),
        os.fdopen(reply_end, "wb") as replies,
        os.fdopen(request_end, "rb", buffering=0) as requests,
    ):
        pipes = ChildPipes(requests, replies)
        request = Open.model_validate_json(pipes.next_request())
        path = Path(os.fsdecode(request.path))
        serve(pipes, path, features_kind(path), request.limits, [])
