"""The child that reads the DICOM headers of one slide: it limits itself first and loads pydicom afterwards."""

import os
from pathlib import Path

from encoders.dicom.instance_protocol import InstanceReply, InstancesOpened, NextInstance
from encoders.errors import SlideError, SlideTooLarge
from encoders.sandbox.confine import Confined, confine_process
from encoders.sandbox.layers import ALL_LAYERS, Layer
from encoders.sandbox.shown_files import shown_files
from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.reader_protocol import Failed, Open

_NO_BODY = memoryview(b"")


def main(layers: frozenset[Layer] = ALL_LAYERS) -> None:
    """Answers the parent on standard input and output until either end closes; tries no more than `layers`."""
    pipes = ChildPipes.take_standard_streams()
    request = Open.model_validate_json(pipes.next_request())
    folder = None if request.folder is None else Path(os.fsdecode(request.folder))
    files = shown_files(Path(os.fsdecode(request.path)), folder)
    confined = confine_process(files, request.limits, request.parent_pid, layers)
    serve(pipes, confined)


def serve(pipes: ChildPipes, confined: Confined) -> None:
    """Describe file after file, each when it is asked for. A SlideError is an answer too."""
    # Not at the top of the file: foreign code is to be initialised under the limits too.
    from encoders.dicom.describe_instance import describe_instance

    pipes.reply(InstancesOpened(count=len(confined.files.places), degraded=confined.degraded), _NO_BODY)
    for name, path in sorted(confined.files.places.items()):
        NextInstance.model_validate_json(pipes.next_request())
        try:
            found = describe_instance(path)
            frames = found.frames.tobytes()
            reply = InstanceReply(
                name=os.fsencode(name),
                sop_instance=found.sop_instance,
                transfer_syntax=found.transfer_syntax,
                attributes_bytes=len(found.attributes),
                metadata_bytes=len(found.metadata),
                frame_count=len(found.frames),
            )
            pipes.reply(reply, memoryview(found.attributes + found.metadata + frames))
        except (SlideError, MemoryError) as error:
            pipes.reply(_failed(error), _NO_BODY)
    pipes.next_request()  # ends this process when the parent has had enough


def _failed(error: SlideError | MemoryError) -> Failed:
    if isinstance(error, MemoryError):
        error = SlideTooLarge("A DICOM header needs more memory than a reader gets; export the series again.")
    return Failed.model_validate({"code": error.code, "detail": error.detail})


if __name__ == "__main__":
    main()
