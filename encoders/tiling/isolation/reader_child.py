"""The child that parses one slide: it limits itself first and loads the parsers afterwards."""

import os
from pathlib import Path

from encoders.sandbox.confine import confine_process
from encoders.sandbox.layers import ALL_LAYERS, Layer
from encoders.sandbox.shown_files import shown_files
from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.reader_protocol import Open


def main(layers: frozenset[Layer] = ALL_LAYERS) -> None:
    """Answers the parent on standard input and output until either end closes; tries no more than `layers`."""
    pipes = ChildPipes.take_standard_streams()
    request = Open.model_validate_json(pipes.next_request())
    folder = None if request.folder is None else Path(os.fsdecode(request.folder))
    files = shown_files(Path(os.fsdecode(request.path)), folder)
    confined = confine_process(files, request.limits, request.parent_pid, layers)
    # Not at the top of the file: foreign code is to be initialised under the limits too.
    from encoders.tiling.isolation.answer_requests import serve

    serve(pipes, confined, request.limits)


if __name__ == "__main__":
    main()
