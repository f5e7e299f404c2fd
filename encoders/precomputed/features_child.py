"""The child that parses one features file: it limits itself first and reads the file afterwards."""

import os
from dataclasses import replace
from pathlib import Path

from encoders.precomputed.features_kind import FeaturesKind, features_kind
from encoders.sandbox.confine import confine_process
from encoders.sandbox.layers import ALL_LAYERS, Layer
from encoders.sandbox.shown_files import shown_files
from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_protocol import Open


def main(layers: frozenset[Layer] = ALL_LAYERS) -> None:
    """Answers the parent on standard input and output until either end closes; tries no more than `layers`."""
    pipes = ChildPipes.take_standard_streams()
    request = Open.model_validate_json(pipes.next_request())
    path = Path(os.fsdecode(request.path))
    kind = features_kind(path)
    limits = _limits_beside_libraries(request.limits, kind)
    confined = confine_process(shown_files(path, None), limits, request.parent_pid, layers)
    # Not at the top of the file: foreign code is to be initialised under the limits too.
    from encoders.precomputed.answer_for_features import serve

    serve(pipes, confined.files.entry, kind, request.limits, confined.degraded)


def _limits_beside_libraries(limits: ReaderLimits, kind: FeaturesKind | None) -> ReaderLimits:
    """A CUDA build of torch maps more address space than a reader is given: the file's share is counted from there.

    torch itself is the worker's own; it has seen no byte of the file yet. Before it converts 16-bit floats for the
    first time it wants to know the processor, from /proc, which is not there later.
    """
    if kind != "torch":
        return limits
    import torch

    torch.zeros((16, 16), dtype=torch.float16).to(torch.float32)
    return replace(limits, memory_bytes=limits.memory_bytes + _mapped_bytes())


def _mapped_bytes() -> int:
    """This process's address space; 0 where the platform does not say, and there it is not limited either."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
