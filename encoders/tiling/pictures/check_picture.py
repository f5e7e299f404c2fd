"""Checks that bytes from a reader process are the picture that was asked for; nothing is decoded."""

from encoders.tiling.slide_readers.jpeg_segments import END, FRAMES, START, MalformedJpeg, segments

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Length, type, checksum.
_CHUNK_FRAME_BYTES = 12
_BASELINE = 0xC0
# DHT, DQT, DRI, and JFIF's own: nothing that carries text or another picture.
_TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xE0})
# Length, bits, height, width, components.
_FRAME_BYTES = 10


def png_size(body: bytes) -> tuple[int, int] | None:
    """(width, height) that a PNG says it has, which is whole and holds pixels alone; None when it is none."""
    if not body.startswith(_PNG_MAGIC):
        return None
    at = len(_PNG_MAGIC)
    found: list[bytes] = []
    while at + _CHUNK_FRAME_BYTES <= len(body) and found[-1:] != [b"IEND"]:
        found.append(body[at + 4 : at + 8])
        at += int.from_bytes(body[at : at + 4]) + _CHUNK_FRAME_BYTES
    if at != len(body) or found[:1] != [b"IHDR"] or found[-1:] != [b"IEND"] or set(found[1:-1]) != {b"IDAT"}:
        return None
    return int.from_bytes(body[16:20]), int.from_bytes(body[20:24])


def jpeg_size(body: bytes) -> tuple[int, int] | None:
    """(width, height) of a whole baseline JPEG of three colours with nothing else in it; None when it is none."""
    if not (body.startswith(START) and body.endswith(END)):
        return None
    try:
        found = list(segments(body))
    except MalformedJpeg:
        return None
    frames = [body[it.start : it.stop] for it in found if it.marker in FRAMES]
    others = {it.marker for it in found if it.marker not in FRAMES}
    if len(frames) != 1 or not others <= _TABLES or len(frames[0]) < _FRAME_BYTES:
        return None
    frame = frames[0]
    if frame[1] != _BASELINE or frame[4] != 8 or frame[9] != 3:
        return None
    return int.from_bytes(frame[7:9]), int.from_bytes(frame[5:7])
