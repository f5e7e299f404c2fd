"""Over a thousand damaged slides, the same ones in every run: none breaks the worker, hangs, or gives wrong pixels.

Twice as many are drawn with EYEPIECE_LONG_TESTS; `make fuzz` draws others each time.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import fuzz_child
import fuzz_longer
import numpy as np
import pytest
from fuzz_driver import KNOWN, Findings, FuzzedReader
from hostile_slides import TILE_PX, drawn_slides
from mutate_slides import Mutant, layout_of, mutate
from numpy.typing import NDArray

from encoders.errors import SlideError
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.tiling.slide_readers.choose_reader import ChosenReader
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.types import SlideFacts
from model_store.contracts.tile_encoder import TilingSpec

SEED = 20_261_121
MUTANTS_PER_DRAWN_SLIDE = 260 if "EYEPIECE_LONG_TESTS" in os.environ else 130
# The reference slide is large; of the others the fast reader takes none.
MUTANTS_PER_SHARED_SLIDE = {
    "cmu-1-small-region.svs": 150,
    "ospy_small.svs": 60,
    "ospy_boxes.tiff": 30,
    "largeimage_test_orient3.tif": 30,
    "highdicom_sm_image.dcm": 30,
    "ezwsi_multiframe_camelyon.dcm": 30,
}
MUTANTS_THROUGH_THE_WORKERS_DOOR = 40 if "EYEPIECE_LONG_TESTS" in os.environ else 20


def mutants_of(slide: bytes, count: int) -> Iterator[tuple[int, Mutant]]:
    """Reproducible one by one: (SEED, index) is all that a mutant depends on."""
    layout = layout_of(slide)
    for index in range(count):
        yield index, mutate(slide, layout, (SEED, index))


def fuzz(reader: FuzzedReader, findings: Findings, name: str, slide: bytes, count: int) -> None:
    for index, mutant in mutants_of(slide, count):
        findings.note(f"{name}, {index}: {mutant.note}", reader.read(mutant, index))


def check(findings: Findings) -> None:
    """What the fast reader paints and refuses is what OpenSlide does; no error but those that are known."""
    print(findings.summary())
    assert findings.wrong_pixels == []
    assert findings.bugs == []
    assert findings.hung == []
    assert findings.refused_alone == []
    assert findings.outcomes.keys() <= KNOWN
    # A worker lives on when its reader dies. But none of these mutants has a right to that: it is how a decoder that
    # writes where it should not is seen.
    assert findings.died == []


def test_damaged_drawn_slides_give_their_true_pixels_or_an_error(tmp_path: Path) -> None:
    findings = Findings()
    with FuzzedReader(tmp_path) as reader:
        for name, slide in drawn_slides().items():
            fuzz(reader, findings, name, slide, MUTANTS_PER_DRAWN_SLIDE)

    check(findings)
    assert findings.total >= 1_000
    # Many must be read, and many by the fast reader: else this would prove nothing.
    assert findings.outcomes["tiles"] > findings.total // 2
    assert findings.compared > findings.total // 4


@pytest.mark.parametrize(("name", "count"), MUTANTS_PER_SHARED_SLIDE.items())
def test_damaged_real_slides_give_their_true_pixels_or_an_error(
    shared_slides: Path, tmp_path: Path, name: str, count: int
) -> None:
    if not (shared_slides / name).exists():
        pytest.skip(f"{name} is not among the shared slides")
    findings = Findings()
    with FuzzedReader(tmp_path) as reader:
        fuzz(reader, findings, name, (shared_slides / name).read_bytes(), count)

    check(findings)


@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-ts1.svs"])
def test_a_real_slide_cut_at_every_power_of_two_is_refused(shared_slides: Path, tmp_path: Path, name: str) -> None:
    slide = (shared_slides / name).read_bytes()
    findings = Findings()
    with FuzzedReader(tmp_path) as reader:
        for power in range(len(slide).bit_length()):
            findings.note(f"2^{power}", reader.read(Mutant(slide[: 2**power], "cut", None), power))

    check(findings)
    assert "tiles" not in findings.outcomes


def test_intact_slides_are_read_fast_and_right(tmp_path: Path) -> None:
    """What is mutated is what the fast reader takes, but for its differences there is nothing to find."""
    findings = Findings()
    with FuzzedReader(tmp_path) as reader:
        for name, slide in drawn_slides().items():
            findings.note(name, reader.read(Mutant(slide, "intact", None), 0))

    check(findings)
    assert findings.compared == findings.total


def test_damaged_slides_through_the_workers_door(tmp_path: Path, tiling: TilingSpec) -> None:
    """The real reader process, plan and tiles, mutant after mutant; an intact slide is read afterwards as before."""
    slides = list(drawn_slides().values())
    small = tiling.model_copy(update={"tile_px": TILE_PX})
    path = tmp_path / "mutant.svs"
    outcomes = set()
    for number in range(MUTANTS_THROUGH_THE_WORKERS_DOOR):
        slide = slides[number % len(slides)]
        # Not the ones that were looked at above.
        path.write_bytes(mutate(slide, layout_of(slide), (SEED, 1_000_000 + number)).data)
        outcomes.add(encode_outcome(path, small))
    path.write_bytes(slides[0])

    assert outcomes <= KNOWN | {"no_tissue"}
    assert {"tiles", "unreadable_slide"} <= outcomes
    assert encode_outcome(path, small) == "tiles"


def encode_outcome(path: Path, tiling: TilingSpec) -> str:
    try:
        with ReaderProcess(path, ReaderLimits(deadline_s=100)) as reader:
            total = len(reader.plan(tiling, 0.5).coords)
            assert sum(len(batch.pixels) for batch in reader.tiles(8)) == total
            return "tiles"
    except SlideError as error:
        return error.code


class OffByOne:
    """A reader with one wrong pixel on each level."""

    def __init__(self, path: Path) -> None:
        self._right = OpenSlideReader(path, ReaderLimits())
        self.facts: SlideFacts = self._right.facts
        self.levels = self._right.levels
        self.read_reduced = self._right.read_reduced
        self.tile_bytes = self._right.tile_bytes

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        pixels = self._right.read_region(x, y, level, width, height)
        if (x, y) == (0, 0):
            pixels[7, 5, 1] ^= 1
        return pixels


def test_one_wrong_pixel_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(drawn_slides()["own tables"])
    monkeypatch.setattr(fuzz_child, "open_reader", lambda *_: ChosenReader(OffByOne(path), "fast_tiff", "eligible"))

    findings = Findings()
    findings.note("a lie", fuzz_child.examine(path, None, 0))

    assert len(findings.wrong_pixels) == 2
    with pytest.raises(AssertionError):
        check(findings)


def test_a_reader_that_hangs_or_dies_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = Findings()
    dying = "import os; print('no more memory', file=os.fdopen(2, 'w')); os.abort()"
    for script in ("import signal; signal.pause()", dying):
        with FuzzedReader(tmp_path, script=script, limit_s=0.5) as reader:
            findings.note(script, reader.read(Mutant(b"", "", None), 0))

    assert findings.outcomes == {"hung": 1, "died": 1}
    assert findings.died == [f"{dying}: no more memory"]
    assert list(tmp_path.iterdir()) == []


def test_the_longer_run_takes_each_slide_in_turn_and_says_what_it_found(
    shared_slides: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide = shared_slides / "ospy_small.svs"

    assert (
        fuzz_longer.main(["--minutes", "0", "--seed", "7", *(["--slide", str(slide)] if slide.exists() else [])]) == 0
    )

    said = capsys.readouterr().out
    assert "outcomes" in said
    assert "seed 7, 1 mutants of each of" in said


def test_openslides_own_surrender_is_no_finding_of_the_longer_run() -> None:
    findings = Findings()
    findings.note("a", {"outcome": "died", "last_words": "GLib-ERROR **: gmem.c:106: failed to allocate 99 bytes"})
    assert not fuzz_longer.is_bad(findings)

    findings.note("b", {"outcome": "died", "last_words": "malloc(): corrupted top size"})
    assert fuzz_longer.is_bad(findings)
