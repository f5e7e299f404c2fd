"""A body that arrives in any pieces, breaks off anywhere, lies about itself: one staged file with the right hash, or
none at all."""

import asyncio
import hashlib
import os
import resource
import shutil
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from encoders.errors import UnsupportedFormat
from server.errors import InvalidRequest, StorageFull, StorageUnavailable, UploadTooLarge
from server.telemetry.metrics import Metrics
from server.uploads import upload_form
from server.uploads.slide_source import manifest_text
from server.uploads.upload import ReceivedSlide, display_name, receive_slide
from server.uploads.upload_files import UploadLimits

BOUNDARY = "boundary7"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
ROOMY = UploadLimits(max_upload_bytes=2**40, disk_reserve_bytes=0)


def part(content: bytes, *, name: str = "file", filename: bytes | None = b"slide.svs") -> bytes:
    shown = b"" if filename is None else b'; filename="' + filename + b'"'
    head = b'Content-Disposition: form-data; name="' + name.encode() + b'"' + shown
    return b"--" + BOUNDARY.encode() + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY.encode() + b"--\r\n"


async def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def receive(
    body: bytes | AsyncIterator[bytes],
    folder: Path,
    *,
    content_type: str = CONTENT_TYPE,
    limits: UploadLimits = ROOMY,
    metrics: Metrics | None = None,
) -> ReceivedSlide:
    pieces = in_pieces(body, 64 * 1024) if isinstance(body, bytes) else body
    return await receive_slide(pieces, content_type, folder / "staged", limits, metrics or new_metrics())


def new_metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def assert_nothing_is_staged(folder: Path) -> None:
    assert list(folder.iterdir()) == []


CONTENT = b"II*\x00" + b"\r\n--boundar\r\n--boundary\r\n-\r\r\n\n" + bytes(range(256))


@pytest.mark.parametrize("size", range(1, 80))
async def test_every_chunk_size_gives_the_same_file(tmp_path: Path, size: int) -> None:
    received = await receive(in_pieces(form(part(CONTENT)), size), tmp_path)

    assert received.files[0].path.read_bytes() == CONTENT
    assert received.slide_id == hashlib.sha256(CONTENT).hexdigest()
    assert received.size_bytes == len(CONTENT)


async def test_a_boundary_may_be_split_anywhere(tmp_path: Path) -> None:
    body = form(part(CONTENT))

    async def two_pieces(at: int) -> AsyncIterator[bytes]:
        yield body[:at]
        yield body[at:]

    for at in range(len(body)):
        received = await receive(two_pieces(at), tmp_path)
        assert received.files[0].path.read_bytes() == CONTENT
        shutil.rmtree(received.folder)


async def test_a_file_larger_than_a_write_is_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_001

    received = await receive(in_pieces(form(part(content)), 100_003), tmp_path)

    assert hashlib.sha256(received.files[0].path.read_bytes()).hexdigest() == received.slide_id
    assert received.size_bytes == len(content)


async def test_a_body_cut_off_anywhere_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    body = form(part(b"0123456789"))

    for end in range(len(body) - len("\r\n")):
        with pytest.raises(InvalidRequest):
            await receive(body[:end], tmp_path)
        assert_nothing_is_staged(tmp_path)


@pytest.mark.parametrize("first", [True, False])
async def test_another_field_is_refused_by_its_name(tmp_path: Path, first: bool) -> None:
    note = part(b"0.5", name="mpp", filename=None)

    with pytest.raises(InvalidRequest, match="no field 'mpp'"):
        await receive(form(*((note, part(CONTENT)) if first else (part(CONTENT), note))), tmp_path)

    assert_nothing_is_staged(tmp_path)


async def test_another_field_with_a_file_is_not_the_slide(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="one field named `file`"):
        await receive(form(part(CONTENT, name="slide")), tmp_path)

    assert_nothing_is_staged(tmp_path)


OTHER_BYTES = {
    "preamble": lambda: b"x" * 2**21 + b"\r\n" + form(part(CONTENT)),
    "epilogue": lambda: form(part(CONTENT)) + b"x" * 2**21,
    "headers": lambda: form(part(CONTENT).replace(b"\r\n\r\n", b"\r\nX: y" * 400_000 + b"\r\n\r\n", 1)),
}


@pytest.mark.parametrize("where", OTHER_BYTES)
async def test_what_is_no_file_cannot_go_on_for_ever(tmp_path: Path, where: str) -> None:
    body = OTHER_BYTES[where]()
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        for start in range(0, len(body), 2**16):
            taken += 2**16
            yield body[start : start + 2**16]

    with pytest.raises(InvalidRequest):
        await receive(counted(), tmp_path)

    assert taken < 2**20 + 2**18
    assert_nothing_is_staged(tmp_path)


@pytest.mark.parametrize("name", ["ä" * 128, "series/" + "\U0001f52c" * 64])
async def test_names_too_long_for_a_disk_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="255 bytes"):
        await receive(form(part(CONTENT), part(b"x", filename=name.encode())), tmp_path)


def test_a_long_name_is_cut_between_characters() -> None:
    assert display_name("ä" * 300) == "ä" * 127
    assert display_name("\U0001f52c" * 255) == "\U0001f52c" * 63


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
async def test_several_files_are_one_slide_whose_id_is_that_of_its_manifest(tmp_path: Path, size: int) -> None:
    contents = {"series/b.dcm": b"second", "a.dcm": CONTENT, "series/a.dcm": b"\r\n--third"}
    body = form(*(part(content, filename=name.encode()) for name, content in contents.items()))

    received = await receive(in_pieces(body, size), tmp_path)

    rows = [(name, len(contents[name]), hashlib.sha256(contents[name]).hexdigest()) for name in sorted(contents)]
    manifest = "".join(f"{name}\t{length}\t{digest}\n" for name, length, digest in rows)
    assert manifest_text(received.files) == manifest
    assert received.slide_id == hashlib.sha256(manifest.encode()).hexdigest()
    assert {file.relative_path: file.path.read_bytes() for file in received.files} == contents


async def test_a_thousand_small_files_need_few_descriptors(tmp_path: Path) -> None:
    names = [f"{number}.dcm" for number in range(1000)]
    before = len(os.listdir("/proc/self/fd"))
    most = 0

    async def watched() -> AsyncIterator[bytes]:
        nonlocal most
        async for piece in in_pieces(form(*(part(b"x", filename=name.encode()) for name in names)), 1024):
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
            yield piece

    received = await receive(watched(), tmp_path)

    assert len(received.files) == 1000
    assert most < 50


@pytest.mark.parametrize(
    "names",
    [
        ["a.dcm", "a.dcm"],
        ["a", "a/b"],
        ["a.dcm", ""],
        ["a.dcm", "../b.dcm"],
        ["a.dcm", "/etc/passwd"],
        ["a.dcm", "b//c"],
        ["a.dcm", "./b"],
        ["a.dcm", "x" * 256],
        ["a.dcm", "b\tc"],
    ],
)
async def test_files_whose_names_cannot_be_one_slides_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        await receive(form(*(part(CONTENT, filename=name.encode()) for name in names)), tmp_path)

    assert_nothing_is_staged(tmp_path)


async def test_a_thousand_small_files_in_one_piece_need_few_descriptors_too(tmp_path: Path) -> None:
    async def one_piece() -> AsyncIterator[bytes]:
        yield form(*(part(b"x", filename=f"{index}".encode()) for index in range(1000)))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        received = await receive(one_piece(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert len(received.files) == 1000


async def test_the_limit_holds_for_all_files_together(tmp_path: Path) -> None:
    parts = [part(bytes(600), filename=name) for name in (b"a", b"b")]

    with pytest.raises(UploadTooLarge):
        await receive(form(*parts), tmp_path, limits=UploadLimits(1000, 0))

    assert_nothing_is_staged(tmp_path)


async def test_one_empty_file_among_several_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat):
        await receive(form(part(b"x", filename=b"a"), part(b"", filename=b"b")), tmp_path)

    assert_nothing_is_staged(tmp_path)


async def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert upload_form._FilesAndTexts.most_parts == 5_000
    monkeypatch.setattr(upload_form._FilesAndTexts, "most_parts", 20)
    parts = (part(b"x", filename=f"{index}".encode()) for index in range(21))

    with pytest.raises(InvalidRequest, match="20 files"):
        await receive(form(*parts), tmp_path)

    assert_nothing_is_staged(tmp_path)


async def test_an_empty_form_has_no_slide(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        await receive(form(), tmp_path)

    assert_nothing_is_staged(tmp_path)


async def test_an_empty_file_is_no_slide(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="empty"):
        await receive(form(part(b"")), tmp_path)

    assert_nothing_is_staged(tmp_path)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "application/octet-stream",
        "multipart/form-data",
        "multipart/mixed; boundary=boundary7",
        f"multipart/form-data; boundary={'b' * 1000}",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary*=utf-8''boundary7",
        ";;;=;=",
        "multipart/form-data; boundary=other",
    ],
)
async def test_what_is_not_this_form_is_refused(tmp_path: Path, content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        await receive(form(part(CONTENT)), tmp_path, content_type=content_type)

    assert_nothing_is_staged(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"",
        b"\x00" * 100_000,
        b"--boundary7\r\nnot a header\r\n\r\n",
        b"--boundary7\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        b"--boundary7\r\nContent-Disposition: " + b"x" * 10**6,
    ],
    ids=["garbage", "empty", "zeros", "no header", "many headers", "endless header"],
)
async def test_a_broken_form_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await receive(body, tmp_path)

    assert_nothing_is_staged(tmp_path)


async def test_a_file_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(tmp_path: Path) -> None:
    limits = UploadLimits(max_upload_bytes=1000, disk_reserve_bytes=0)

    received = await receive(form(part(bytes(1000))), tmp_path, limits=limits)
    shutil.rmtree(received.folder)
    with pytest.raises(UploadTooLarge):
        await receive(form(part(bytes(1001))), tmp_path, limits=limits)

    assert_nothing_is_staged(tmp_path)


async def test_a_file_beyond_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        yield part(b"")[:-2]
        while True:
            asked += 1
            yield bytes(1000)

    with pytest.raises(UploadTooLarge):
        await receive(endless(), tmp_path, limits=UploadLimits(10_000, 0))

    assert asked == 11


async def test_uploads_stop_before_the_disk_is_full(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        await receive(form(part(CONTENT)), tmp_path, limits=UploadLimits(2**40, disk_reserve_bytes=2**60))

    assert_nothing_is_staged(tmp_path)


async def test_a_folder_that_cannot_be_written_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        await receive(form(part(CONTENT)), tmp_path / "missing")


async def test_a_client_that_hangs_up_leaves_no_file(tmp_path: Path) -> None:
    async def hanging_up() -> AsyncIterator[bytes]:
        yield part(bytes(3 * 2**20))
        raise ClientDisconnect

    with pytest.raises(InvalidRequest, match="cut off"):
        await receive(hanging_up(), tmp_path)

    assert_nothing_is_staged(tmp_path)


async def test_a_cancelled_upload_leaves_no_file(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield part(CONTENT)
        waiting.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(receive(stalling(), tmp_path))
    await waiting.wait()
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)

    assert upload.cancelled()
    assert_nothing_is_staged(tmp_path)


class SlowCounter:
    """Stands where the metric of written bytes does: holds the writing thread after its write."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    def inc(self, _: int) -> None:
        self.entered.set()
        assert self.leave.wait(30)


async def test_the_file_stays_open_while_a_thread_writes_to_it(tmp_path: Path) -> None:
    metrics = new_metrics()
    slow = SlowCounter()
    metrics.upload_bytes = slow  # type: ignore[assignment]

    upload = asyncio.create_task(receive(form(part(CONTENT)), tmp_path, metrics=metrics))
    await asyncio.to_thread(slow.entered.wait, 30)
    upload.cancel()
    ended, _ = await asyncio.wait({upload}, timeout=0.05)
    slow.leave.set()
    await asyncio.gather(upload, return_exceptions=True)

    assert not ended
    assert upload.cancelled()
    assert_nothing_is_staged(tmp_path)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"slide.svs", "slide.svs"),
        (b"../../etc/passwd", "passwd"),
        (b"C:\\\\patients\\\\Doe.svs", "Doe.svs"),
        (b"/", "slide"),
        (b"", "slide"),
        (b"a\x00b\x1bc\x7f.svs", "abc.svs"),
        ("tumor-\N{MICROSCOPE}.svs".encode(), "tumor-\N{MICROSCOPE}.svs"),
        ("Größe \u202egnp.svs".encode(), "Größe gnp.svs"),
        (b"\xff\xfe.svs", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.svs"),
        (b"n" * 10_000, "n" * 255),
        ("\N{MICROSCOPE}".encode() * 10_000, "\N{MICROSCOPE}" * 63),
        (b'a\\"b.svs', 'a"b.svs'),
    ],
)
async def test_a_file_name_is_made_harmless(tmp_path: Path, sent: bytes, shown: str) -> None:
    received = await receive(form(part(CONTENT, filename=sent)), tmp_path)

    assert display_name(received.files[0].relative_path) == shown
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


async def test_a_file_without_a_name_is_called_slide(tmp_path: Path) -> None:
    received = await receive(form(part(CONTENT, filename=None)), tmp_path)

    assert display_name(received.files[0].relative_path) == "slide"


async def test_the_bytes_received_are_counted(tmp_path: Path) -> None:
    metrics = new_metrics()

    await receive(form(part(CONTENT)), tmp_path, metrics=metrics)

    assert metrics.registry.get_sample_value("eyepiece_upload_bytes_total") == len(CONTENT)


async def test_memory_stays_flat_however_large_the_file(tmp_path: Path) -> None:
    piece, count = bytes(64 * 1024), 3200

    async def large() -> AsyncIterator[bytes]:
        for chunk in surrounded(piece for _ in range(count)):
            yield chunk

    tracemalloc.start()
    try:
        received = await receive(large(), tmp_path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert received.size_bytes == count * len(piece)
    # Two batches of 4 MiB, one of them while its chunks are joined, and one that is written: a thread lets go of its
    # work a moment after it has said that it is done.
    assert peak_bytes < 20 * 2**20


def surrounded(pieces: Iterable[bytes]) -> Iterable[bytes]:
    yield part(b"")[:-2]
    yield from pieces
    yield b"\r\n" + form()
