"""Uploads whose index names files of other tenants, through the whole API."""

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from api_parts import problem_of
from slides_of_several import RED, jpeg, write_mirax, write_vms

from server.api.parts import Parts


def form_of(folder: Path) -> list[tuple[str, tuple[str, bytes]]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [("file", (str(path.relative_to(folder)), path.read_bytes())) for path in files]


def write_mirax_of_windows(folder: Path) -> Path:
    return write_mirax(folder, "SLIDE.MRXS")


@pytest.mark.parametrize("write", [write_vms, write_mirax, write_mirax_of_windows])
async def test_good_slides_of_several_files_are_accepted_and_shown(
    client: httpx.AsyncClient, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "made"
    write(folder)

    answer = await client.post("/v1/slides", files=form_of(folder))
    picture = await client.get(f"/v1/slides/{answer.json()['id']}/thumbnail")

    assert answer.status_code == 202, answer.text
    assert (picture.status_code, picture.content[:2]) == (200, b"\xff\xd8")


async def test_a_slide_of_another_tenant_is_neither_shown_nor_told_of(
    client: httpx.AsyncClient, parts: Parts, tmp_path: Path
) -> None:
    store = parts.store.local_root
    assert store is not None
    secret = store / "tenants" / "other" / "slides" / ("ab" * 32) / "source" / "slide"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(jpeg(RED))
    os.mkfifo(secret.with_name("fifo"))
    refusals = []
    for name in ("slide", "absent", "fifo"):
        # From any depth: a root has no parent but itself.
        named = "../" * 20 + str(secret.with_name(name)).lstrip("/")
        mirax, vms = tmp_path / f"mirax_{name}", tmp_path / f"vms_{name}"
        write_mirax(mirax, data=named)
        write_vms(vms, ImageFile=named, MapFile=named)
        for folder in (mirax, vms):
            answer = await client.post("/v1/slides", files=form_of(folder))
            refusals.append((problem_of(answer, 422), answer.json()["detail"]))

    assert set(refusals[::2]) == {refusals[0]}
    assert set(refusals[1::2]) == {refusals[1]}
    assert {code for code, _ in refusals} == {"unreadable_slide"}
