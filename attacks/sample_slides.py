"""Slides to attack with, small and no two alike: features that need no tiling, and a picture that does."""

import io
import secrets
import tempfile
from functools import cache
from pathlib import Path

import cv2
import h5py
import numpy as np

from attacks.own_server import OwnServer

FEATURE_DIM, _TILE_PX = 192, 224


def features_file(tiles: int = 16) -> bytes:
    """Features of a slide of so many tiles, as TRIDENT writes them."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        values = np.random.default_rng(secrets.randbits(64)).standard_normal((tiles, FEATURE_DIM))
        file["features"] = values.astype(np.float32)
        add_coords(file, tiles)
    return buffer.getvalue()


def add_coords(file: h5py.File, tiles: int) -> None:
    """In rows of sixteen."""
    file["coords"] = np.array([(n % 16, n // 16) for n in range(tiles)], np.int64) * _TILE_PX
    file["coords"].attrs.update(
        patch_size=_TILE_PX, patch_size_level0=_TILE_PX, level0_magnification=20, target_magnification=20, overlap=0
    )


def pixel_slide() -> bytes:
    """A synthetic slide; what is behind a TIFF's end is nothing to its readers, and makes each another one."""
    return _drawn() + secrets.token_bytes(16)


@cache
def _drawn() -> bytes:
    from synthetic.write_slide import write_synthetic_slide  # tifffile, a second

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slide.svs")
        write_synthetic_slide(path, seed=1, width_px=1344, height_px=1120)
        return path.read_bytes()


def jpeg(side_px: int = 256, colour: int = 120) -> bytes:
    """A picture of one colour with a little noise, with the restart markers that Hamamatsu's reader asks for."""
    noise = np.random.default_rng(secrets.randbits(64)).integers(0, 20, (side_px, side_px, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", noise + np.uint8(colour), (cv2.IMWRITE_JPEG_RST_INTERVAL, side_px // 16))[1])


async def ready_slide(server: OwnServer, key: str, content: bytes | None = None) -> str:
    """The id of a new slide that can be asked about.

    Raises:
        RuntimeError: it did not get ready.
    """
    reply = await server.target.upload_one("slide.h5", features_file() if content is None else content, key)
    slide_id = str(reply.json.get("id"))
    state = await server.target.wait_until_encoded(slide_id, key)
    if state != "ready":
        raise RuntimeError(f"a slide to attack with was answered {reply.status} {reply.code} and is {state!r}")
    return slide_id
