"""Files of one form that are not one slide's are named, not left unread."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from api_parts import problem_of
from dicom_slide import DicomLevel, write_dicom
from features_files import TRIDENT_ATTRIBUTES, write_hdf5
from slides_of_several import GREEN, jpeg, write_mirax, write_vms
from tiled_jpeg import Recipe, write_slide

from encoders.errors import UnsupportedFormat
from server.uploads.one_slide import SourceFile, require_one_slide

Form = tuple[str, str]


def form_of(folder: Path) -> list[SourceFile]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        SourceFile(
            path, str(path.relative_to(folder)), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in paths
    ]


def dicom_series(folder: Path) -> Path:
    return write_dicom(folder, [DicomLevel(256, 256, 0.5, [jpeg(GREEN)])] * 2, 256, 20, "YBR_FULL_422")


def two_containers(folder: Path) -> Form:
    write_slide(folder / "a.svs", Recipe(sizes=((256, 256),)))
    write_slide(folder / "b.tif", Recipe(sizes=((256, 256),), is_rgb=True))
    return "a.svs", "aperio"


def two_series(folder: Path) -> Form:
    dicom_series(folder / "one")
    dicom_series(folder / "two")
    return "one/l0.dcm", "dicom"


def two_mirax(folder: Path) -> Form:
    write_mirax(folder)
    write_mirax(folder, "zweite.mrxs")
    return "slide.mrxs", "mirax"


def mirax_and_container(folder: Path) -> Form:
    write_mirax(folder)
    write_slide(folder / "slide/other.svs", Recipe(sizes=((256, 256),)))
    return "slide.mrxs", "mirax"


def series_and_container(folder: Path) -> Form:
    dicom_series(folder / "one")
    write_slide(folder / "other.svs", Recipe(sizes=((256, 256),)))
    return "one/l0.dcm", "dicom"


def container_and_features(folder: Path) -> Form:
    write_slide(folder / "a.svs", Recipe(sizes=((256, 256),)))
    write_hdf5(folder / "b.h5", **TRIDENT_ATTRIBUTES)
    return "a.svs", "aperio"


@pytest.mark.parametrize(
    ("draw", "others"),
    [
        (two_containers, ["file 2 (b.tif)"]),
        (two_series, ["file 3 (l0.dcm)", "file 4 (l1.dcm)"]),
        (two_mirax, ["(zweite.mrxs)"]),
        (mirax_and_container, ["(other.svs)"]),
        (series_and_container, ["file 3 (other.svs)"]),
        (container_and_features, ["file 2 (b.h5)"]),
    ],
)
def test_another_slide_in_the_form_is_named(
    tmp_path: Path, draw: Callable[[Path], Form], others: Sequence[str]
) -> None:
    entry, vendor = draw(tmp_path)

    with pytest.raises(UnsupportedFormat, match="One form is one slide") as caught:
        require_one_slide(form_of(tmp_path), entry, vendor)

    for other in others:
        assert other in caught.value.detail


@pytest.mark.parametrize("name", ["notes.txt", "thumbnail.jpg", "DICOMDIR"])
@pytest.mark.parametrize("draw", [lambda folder: write_mirax(folder).name, lambda folder: write_vms(folder).name])
def test_a_file_that_would_not_be_read_is_named(tmp_path: Path, draw: Callable[[Path], str], name: str) -> None:
    entry = draw(tmp_path)
    (tmp_path / name).write_bytes(jpeg(GREEN))

    with pytest.raises(UnsupportedFormat, match=f"{name}.* no part of the slide"):
        require_one_slide(form_of(tmp_path), entry, "mirax" if entry.endswith("mrxs") else "hamamatsu")


def test_the_files_of_one_slide_are_taken(tmp_path: Path) -> None:
    for name, draw, entry, vendor in (
        ("mirax", write_mirax, "slide.mrxs", "mirax"),
        ("vms", write_vms, "slide.vms", "hamamatsu"),
        ("series", dicom_series, "l1.dcm", "dicom"),
    ):
        draw(tmp_path / name)
        require_one_slide(form_of(tmp_path / name), entry, vendor)


async def test_two_slides_in_one_form_are_refused_and_nothing_is_kept(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    two_containers(tmp_path)

    refused = await client.post("/v1/slides", files=_fields(tmp_path / "a.svs", tmp_path / "b.tif"))

    assert problem_of(refused, 415) == "unsupported_format"
    assert "One form is one slide" in refused.json()["detail"]
    assert (await client.get("/v1/slides")).json()["data"] == []


async def test_levels_that_padding_made_as_large_as_finer_ones_are_one_slide(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """OpenSlide takes no two files of a size; one file says that it is the finer level."""
    frames = [jpeg(GREEN)]
    levels = [DicomLevel(512, 512, 0.5, frames * 4), *(DicomLevel(256, 256, mpp, frames) for mpp in (1, 2, 4))]
    path = write_dicom(tmp_path / "series", levels, 256, 20, "YBR_FULL_422")

    answer = await client.post("/v1/slides", files=_fields(*sorted(path.parent.iterdir())))

    assert answer.status_code == 202
    assert (answer.json()["vendor"], answer.json()["width"]) == ("dicom", 512)


def _fields(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (path.name, path.read_bytes())) for path in paths]
