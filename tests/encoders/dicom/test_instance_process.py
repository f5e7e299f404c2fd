"""DICOM headers read in a child process: what is said of them, and what is not believed."""

import json
import sys
from pathlib import Path

import pydicom
import pytest
from dicom_series import write_series
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian

from encoders.dicom.describe_instance import describe_instance
from encoders.dicom.instance_process import InstanceProcess
from encoders.errors import ReaderDied, UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits

LIMITS = ReaderLimits(deadline_s=60)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(tmp_path_factory.mktemp("slide") / "series")


def test_a_folder_is_described_in_the_sandbox(levels: list[Path]) -> None:
    with InstanceProcess(levels[0], LIMITS, folder=levels[0].parent) as process:
        described = list(process.described())

    assert [it.name for it in described] == [path.name for path in levels]
    for it, path in zip(described, levels, strict=True):
        dataset, content = pydicom.dcmread(path), path.read_bytes()
        assert it.sop_instance == dataset.SOPInstanceUID
        assert it.attributes["00280008"]["Value"] == [dataset.NumberOfFrames]
        assert json.loads(it.metadata or b"")["00480006"]["Value"] == [dataset.TotalPixelMatrixColumns]
        frames = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
        assert it.frames is not None
        assert [content[offset : offset + size] for offset, size in it.frames] == frames


def test_uncompressed_frames_lie_one_behind_the_other(levels: list[Path], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(levels[1])
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows = dataset.Columns = 8
    dataset.NumberOfFrames = 3
    dataset.PixelData = bytes(range(192)) * 3
    dataset["PixelData"].is_undefined_length = False
    path = tmp_path / "native.dcm"
    dataset.save_as(path, enforce_file_format=True)

    frames = describe_instance(path).frames

    assert [path.read_bytes()[offset : offset + size] for offset, size in frames] == [bytes(range(192))] * 3


def test_a_frame_in_two_pieces_is_not_guessed(levels: list[Path], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(levels[0])
    dataset.NumberOfFrames = 3  # of four fragments
    path = tmp_path / "pieces.dcm"
    dataset.save_as(path, enforce_file_format=True)

    assert describe_instance(path).frames.shape == (0, 2)


def test_a_header_that_is_too_long_is_searched_and_not_sent(levels: list[Path], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(levels[0])
    dataset.add_new(0x0009_0010, "LO", "OURS")
    dataset.add_new(0x0009_1001, "OB", bytes(5 * 2**20))
    path = tmp_path / "long.dcm"
    dataset.save_as(path, enforce_file_format=True)

    described = describe_instance(path)

    assert described.metadata == b""
    assert json.loads(described.attributes)["00280008"]["Value"] == [4]
    assert len(described.frames) == 4


def test_a_value_that_is_none_is_left_out_and_nothing_else(levels: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "wrong.dcm"
    content = levels[0].read_bytes()
    dataset = pydicom.dcmread(levels[0])
    dataset.InstanceNumber = "1234"
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes().replace(b"IS\x04\x001234", b"IS\x04\x0012x4", 1)
    path.write_bytes(content)

    described = describe_instance(path)

    assert "00200013" not in json.loads(described.attributes)
    assert json.loads(described.attributes)["00280010"]["Value"] == [256]


def test_a_header_that_ends_too_soon_is_unreadable(levels: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(levels[0].read_bytes()[:200])

    with pytest.raises(UnreadableSlide, match="cannot be read"):
        describe_instance(path)


CHILD = """
from encoders.dicom.instance_protocol import InstanceReply, InstancesOpened
from encoders.tiling.isolation.child_pipes import ChildPipes
pipes = ChildPipes.take_standard_streams()
pipes.next_request()
pipes.reply(InstancesOpened(count=1, degraded=[]), memoryview(b""))
pipes.next_request()
body = {body}
pipes.reply(InstanceReply(**{{"name": {name}, "sop_instance": "1.2", "transfer_syntax": "1.2", "attributes_bytes": 2,
    "metadata_bytes": 0, "frame_count": 0, **{changes}}}), memoryview(body))
pipes.next_request()
"""


@pytest.mark.parametrize(
    ("name", "body", "changes"),
    [
        ("b'../other'", "b'{}'", {}),
        ("NAME", "b'{}'", {"frame_count": 1}),
        ("NAME", "b'{}' + bytes(8) + b'\\xff' * 7 + b'\\x7f'", {"frame_count": 1}),
        ("NAME", "b'[]'", {}),
        ("NAME", "b'{}{}{'", {"metadata_bytes": 3}),
        ("NAME", "b'{}[]'", {"metadata_bytes": 2}),
        ("NAME", 'b\'{"00100010": {"vr": "PN", "Value": [[1]]}}\'', {"attributes_bytes": 42}),
        ("NAME", "b'{\"00100030\": 7}'", {"attributes_bytes": 15}),
    ],
)
def test_what_cannot_be_is_not_believed(levels: list[Path], name: str, body: str, changes: dict[str, int]) -> None:
    named = name.replace("NAME", repr(levels[0].name.encode()))
    script = CHILD.format(name=named, body=body, changes=changes)
    command = [sys.executable, "-P", "-c", script]
    with (
        InstanceProcess(levels[0], LIMITS, folder=levels[0].parent, command=command) as process,
        pytest.raises(ReaderDied, match="impossible"),
    ):
        next(process.described())
