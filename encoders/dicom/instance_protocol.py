"""Messages of the child that reads DICOM headers, in the frames of `encoders.tiling.isolation.reader_protocol`.

`Open` is answered by `InstancesOpened`, each `NextInstance` by an `InstanceReply`; `Failed` may stand in place of
either.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from encoders.tiling.isolation.reader_protocol import Failed, Message, Sentence

MOST_INSTANCES = 5_000
# JSON is several times what it is made of: of a header of 4 MiB (`describe_instance`), this is enough.
MAX_METADATA_BYTES = 48 * 2**20
MAX_ATTRIBUTES_BYTES = 256 * 2**10
MAX_FRAMES = 2_000_000
FRAME_ROW_BYTES = 16
Uid = Annotated[str, StringConstraints(pattern=r"^[0-9.]{1,64}$")]


class InstancesOpened(Message):
    """How many files there are; a sentence for each limit that this platform did not grant."""

    reply: Literal["instances_opened"] = "instances_opened"
    count: Annotated[int, Field(ge=1, le=MOST_INSTANCES)]
    degraded: Annotated[list[Sentence], Field(max_length=16)]


class NextInstance(Message):
    """Describe the next file, in the order of their names."""

    ask: Literal["next_instance"] = "next_instance"


class InstanceReply(Message):
    """What a file's header says; body = attributes and metadata, each as JSON (PS3.18, annex F), and the frames.

    `name` is the file's path below the folder. Without `metadata_bytes` the header is too long to be written whole, or
    cannot be. The frames are int64 little-endian [frame_count, 2]: offset and byte count in the file. Without them
    nobody can say where each frame lies: it is in several pieces, or not stored one by one.
    """

    reply: Literal["instance"] = "instance"
    name: Annotated[bytes, Field(max_length=4_096)]
    sop_instance: Uid
    transfer_syntax: Uid
    attributes_bytes: Annotated[int, Field(ge=2, le=MAX_ATTRIBUTES_BYTES)]
    metadata_bytes: Annotated[int, Field(ge=0, le=MAX_METADATA_BYTES)]
    frame_count: Annotated[int, Field(ge=0, le=MAX_FRAMES)]


AnyInstanceReply = InstancesOpened | InstanceReply | Failed
INSTANCE_REPLY: TypeAdapter[AnyInstanceReply] = TypeAdapter(Annotated[AnyInstanceReply, Field(discriminator="reply")])
