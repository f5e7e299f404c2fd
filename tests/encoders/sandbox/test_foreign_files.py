"""Slides whose index names files that are not theirs get none of them, and learn nothing about them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slides_of_several import RED, jpeg, write_mirax, write_vms, write_vmu

from encoders.errors import ReaderDied, SlideError, UnreadableSlide
from encoders.sandbox.layers import ALL_LAYERS, Layer
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess

LIMITS = ReaderLimits(deadline_s=60)
# What is left where the platform grants less; each leaves out what a container or an old kernel may refuse.
LAYERS: dict[str, frozenset[Layer]] = {
    "all": ALL_LAYERS,
    "own_root": frozenset({"own_root"}),
    "landlock": frozenset({"landlock"}),
    "none": frozenset(),
}
Attack = Callable[[Path, str], Path]
ATTACKS: dict[str, Attack] = {
    "vms image": lambda folder, name: write_vms(folder, ImageFile=name),
    "vms map": lambda folder, name: write_vms(folder, MapFile=name),
    "vms macro": lambda folder, name: write_vms(folder, MacroImage=name),
    "vmu image": lambda folder, name: write_vmu(folder, ImageFile=name, MapFile=name),
    "mirax data": lambda folder, name: write_mirax(folder, data=f"../{name}"),
    "mirax index": lambda folder, name: write_mirax(folder, index=f"../{name}"),
}


def command_with(layers: frozenset[Layer]) -> list[str]:
    script = f"from encoders.tiling.isolation.reader_child import main; main(frozenset({sorted(layers)!r}))"
    return [sys.executable, "-P", "-c", script]


def outcome(path: Path, folder: Path | None, layers: frozenset[Layer] = ALL_LAYERS) -> tuple[str, str] | bytes:
    """The picture of a slide that opens, else code and sentence of its error."""
    try:
        with ReaderProcess(path, LIMITS, folder=folder, command=command_with(layers)) as reader:
            return reader.thumbnail(64, "png")
    except (SlideError, ReaderDied) as error:
        return error.code, error.detail


def examine_in_turn(folder: Path, entries: list[str], layers: frozenset[Layer]) -> list[list[str]]:
    """Opens several entries of a folder in one confined process: far cheaper than one process each."""
    script = EXAMINE.format(folder=str(folder), entries=entries, layers=sorted(layers), parent=os.getpid())
    said: list[list[str]] = json.loads(run_python(script))
    return said


def run_python(script: str) -> str:
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


EXAMINE = """
import json
from dataclasses import replace
from pathlib import Path
from encoders.sandbox.confine import confine_process
from encoders.sandbox.shown_files import shown_files
from encoders.tiling.isolation.reader_limits import ReaderLimits
folder = Path({folder!r})
files = shown_files(folder / "none", folder)
confined = confine_process(files, ReaderLimits(), {parent}, frozenset({layers!r}))
from encoders.errors import SlideError
from encoders.sandbox.index_names import require_names_inside
from encoders.tiling.pictures.view_pictures import ViewPictures
from encoders.tiling.slide_readers.choose_reader import open_reader
said = []
for name in {entries!r}:
    entry = confined.files.folder / name
    try:
        if not confined.sees_only_its_files:
            files = replace(confined.files, entry=entry)
            require_names_inside(files, is_confined=confined.opens_only_its_files)
        ViewPictures(open_reader(entry, ReaderLimits()).reader, ReaderLimits()).thumbnail(64)
        said.append(["opened", ""])
    except SlideError as error:
        said.append([error.code, error.detail])
print(json.dumps(said))
"""


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_good_slides_open_and_attacks_get_the_same_refusal_for_what_is_there_and_what_is_not(
    tmp_path: Path, layers: frozenset[Layer]
) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(RED))
    os.mkfifo(tmp_path / "fifo")
    folder = tmp_path / "slide"
    write_vms(folder / "good_vms")
    write_mirax(folder / "good_mirax")
    entries = ["good_vms/slide.vms", "good_mirax/slide.mrxs"]
    for attack, write in ATTACKS.items():
        for name in ("secret.jpg", "absent.jpg", "fifo"):
            path = write(folder / f"{attack} {name}".replace(" ", "_"), f"../../{name}")
            entries.append(str(path.relative_to(folder)))

    said = examine_in_turn(folder, entries, layers)

    assert said[:2] == [["opened", ""]] * 2
    for attack, there, absent, fifo in zip(ATTACKS, said[2::3], said[3::3], said[4::3], strict=True):
        assert there[0] == "unreadable_slide", attack
        assert there == absent == fifo, attack


@pytest.mark.parametrize(
    "layers", [ALL_LAYERS, frozenset[Layer]({"landlock", "call_filter"})], ids=["all", "container"]
)
def test_through_the_real_child_a_foreign_file_is_neither_shown_nor_told_of(
    tmp_path: Path, layers: frozenset[Layer]
) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(RED))
    there = write_vms(tmp_path / "a", ImageFile="../secret.jpg")
    absent = write_vms(tmp_path / "b", ImageFile="../absent.jpg")

    said = outcome(there, there.parent, layers)

    assert said == outcome(absent, absent.parent, layers)
    assert said[0] == "unreadable_slide"


def test_good_slides_of_several_files_open_through_the_real_child(tmp_path: Path) -> None:
    for path in (write_vms(tmp_path / "vms"), write_mirax(tmp_path / "mirax")):
        assert isinstance(outcome(path, path.parent), bytes)


def test_a_link_in_a_slides_folder_is_the_callers_and_is_followed_to_a_file_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "abc").write_bytes(jpeg(RED))
    path = write_vms(tmp_path / "tree")
    (path.parent / "image.jpg").unlink()
    (path.parent / "image.jpg").symlink_to(kept / "abc")

    assert isinstance(outcome(path, path.parent), bytes)
    assert isinstance(outcome(path, path.parent, frozenset({"landlock"})), bytes)


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_slide_of_one_file_finds_no_neighbours(tmp_path: Path, layers: frozenset[Layer]) -> None:
    with_neighbours = write_vms(tmp_path / "a")
    alone = write_vms(tmp_path / "b")
    for part in ("image.jpg", "map.jpg"):
        (alone.parent / part).unlink()

    said = outcome(with_neighbours, None, layers)

    assert said == outcome(alone, None, layers)
    assert said[0] == "unreadable_slide"


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_dicom_file_of_another_upload_is_not_taken_for_one_of_the_series(
    tmp_path: Path, shared_slides: Path, layers: frozenset[Layer]
) -> None:
    series = shared_slides / "ospy_boxes_dicom"
    if not series.exists():
        pytest.skip("the DICOM series is not among the shared slides")
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "mine").write_bytes((series / "boxes_1.dcm").read_bytes())
    (staging / "other").symlink_to(series / "boxes_0.dcm")

    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "mine").write_bytes((series / "boxes_1.dcm").read_bytes())

    # boxes_1 cannot be opened without boxes_0, which is level 0.
    refused = outcome(staging / "mine", None, layers)
    if layers:  # in the same words as where there is no other file
        assert refused == outcome(alone / "mine", None, layers)
        assert refused[0] == "unsupported_format"
    else:  # nothing keeps OpenSlide from the others: whatever has neighbours is refused before it looks
        assert refused[0] == "unreadable_slide"
    assert isinstance(outcome(staging / "mine", staging, layers), bytes)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_regular_file_is_no_slide_and_holds_nobody(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "slide.svs"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")

    with pytest.raises(UnreadableSlide), ReaderProcess(path, LIMITS):
        pass
