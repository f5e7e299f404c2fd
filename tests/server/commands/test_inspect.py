"""`eyepiece inspect`: the report of good and bad slides, as text and as JSON, without a server."""

import hashlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from dicom_slide import DicomLevel, write_dicom
from drawn_levels import drawn_levels
from slides_of_several import GREEN, jpeg
from sparse_slides import SparseRecipe, write_tiff
from tiled_jpeg import Recipe, write_slide

from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.hierarchical.levels_checks import UNKNOWN_SLIDE
from encoders.hierarchical.levels_file import read_levels, write_levels
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.pictures.deep_zoom import TilePlace
from encoders.tiling.pictures.draw_levels import REGION_RGB
from encoders.tiling.slide_readers.reader_kind import ReaderKind, ReaderReason
from model_store.packaged_models import PACKAGED
from server.commands import inspect as command
from server.commands.inspect import InspectOptions, inspect
from server.commands.inspected_model import inspected_model
from server.commands.inspection_report import READERS, REASONS, duration, report_lines
from server.commands.measure_rates import encode_rate
from server.commands.outcome import CommandError, ExitCode
from server.settings import Settings
from server.uploads.slide_inspection import reader_limits
from synthetic.write_slide import write_sample_slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "biopsy.svs"
    write_sample_slide(path, seed=3, width_px=3072, height_px=2560)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", device="cpu")


def report_of(
    settings: Settings, options: InspectOptions, capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, Any], CommandError | None]:
    """The JSON document, and the error that ended the command."""
    try:
        inspect(settings, options, as_json=True)
    except CommandError as error:
        return json.loads(capsys.readouterr().out), error
    return json.loads(capsys.readouterr().out), None


def test_a_good_slide_is_described_planned_and_measured(
    slide: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    report, error = report_of(settings, InspectOptions(slide), capsys)

    assert error is None
    assert (report["file"], report["bytes"], report["format"]) == ("biopsy.svs", slide.stat().st_size, "aperio")
    assert (report["width"], report["height"]) == (3072, 2560)
    assert (report["mpp"], report["mpp_source"], report["objective_power"]) == (0.5, "property", 20.0)
    assert (report["reader"], report["reader_reason"]) == ("fast_tiff", "eligible")
    assert [(level["downsample"], level["mpp"], level["tile_size"]) for level in report["levels"]] == [
        (1.0, 0.5, [256, 256]),
        (4.0, 2.0, [256, 256]),
        (16.0, 8.0, [256, 256]),
    ]
    assert report["model"] == {"name": "demo", "target_mpp": 0.5, "tile_px": 224}
    assert 0.1 < report["tissue_share"] < 0.5
    assert 0.01 < report["pen_share"] < 0.2  # seed 3 has a stroke of blue ink
    plan = report["plan"]
    assert (plan["level"], plan["read_px"], plan["scale"], plan["tile_px_level0"]) == (0, 224, 1.0, 224.0)
    assert 20 < plan["tile_count"] < 143
    estimate = report["estimate"]
    assert estimate["read_s"] == pytest.approx(plan["tile_count"] / estimate["read_tiles_per_s"])
    assert estimate["encode_s"] == pytest.approx(plan["tile_count"] / estimate["encode_tiles_per_s"])
    assert (estimate["device"], estimate["note"], report["error"], report["overlay"]) == ("cpu", None, None, None)
    # Nothing was installed for it, and nothing else left behind.
    assert not settings.data_dir.exists()


def test_another_resolution_is_said_to_be_the_callers(
    slide: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    report, _ = report_of(settings, InspectOptions(slide, mpp=0.25, measure_encoder=False), capsys)

    assert (report["mpp"], report["mpp_source"]) == (0.25, "override")
    assert (report["plan"]["read_px"], report["plan"]["scale"]) == (448, 2.0)
    assert report["estimate"]["encode_s"] is None
    assert report["estimate"]["note"] == "not asked for"


def test_what_is_doubtful_is_reported(tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    described = Recipe(description="Aperio drawn\r\n|AppMag = 40|MPP = 0.5")
    path = write_slide(tmp_path / "doubtful.svs", described)

    report, _ = report_of(settings, InspectOptions(path, measure_encoder=False), capsys)

    assert [it["code"] for it in report["warnings"]] == ["mpp_contradicted"]
    assert ("doubt", report["warnings"][0]["detail"]) in [(name, str(value)) for name, value in report_lines(report)]


def test_the_overlay_is_drawn(slide: Path, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "plan.png"

    inspect(settings, InspectOptions(slide, overlay=path, measure_encoder=False), as_json=True)

    picture = cv2.imread(str(path))
    assert picture is not None
    assert max(picture.shape[:2]) == 2048
    assert np.ptp(picture[:1600]) > 100
    assert [file.name for file in tmp_path.iterdir()] == ["plan.png"]


def test_a_person_reads_one_line_for_each_thing(
    slide: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(settings, InspectOptions(slide, measure_encoder=False), as_json=False)

    out = capsys.readouterr().out
    for words in (
        "biopsy.svs",
        "3,072 × 2,560 px",
        "0.5 µm/px, as the file says; objective 20×",
        "fast TIFF reader",
        "level 1",
        "tiles of 256 × 256",
        "demo: tiles of 224 px",
        "of the tissue lies under pen",
        "224 px of level 0, as they are",
        "tiles/s on this machine",
        "not measured: not asked for",
    ):
        assert words in out


@pytest.mark.parametrize(
    ("name", "code", "known"),
    [
        ("tcga-cr-7395-ts1.svs", "missing_mpp", {"format", "width", "levels", "tissue_share"}),
        ("ezwsi_multiframe_camelyon.dcm", "resolution_too_low", {"format", "mpp", "levels", "tissue_share"}),
        ("ospy_small.svs", "no_tissue", {"format", "mpp", "levels", "tissue_share"}),
        ("made_corrupt_zeros_tail.svs", "unreadable_slide", {"format", "mpp", "levels"}),
        ("ospy_unreadable.svs", "unreadable_slide", {"format", "mpp", "levels"}),
        ("truncated.svs", "unreadable_slide", set()),
        ("histolab_broken.svs", "unsupported_format", set()),
    ],
)
def test_a_bad_slide_is_reported_as_far_as_it_goes(
    shared_slides: Path,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: str,
    known: set[str],
) -> None:
    report, error = report_of(settings, InspectOptions(shared_slides / name), capsys)

    assert error is not None
    assert (error.exit_code, error.problem_code) == (ExitCode.FAILED, code)
    assert report["error"] == {"code": code, "detail": str(error)}
    assert {field for field in known if report[field]} | ({"tissue_share"} & known) == known
    assert report["plan"] is None
    assert list(report_lines(report))


def test_where_no_tile_fits_the_drawing_is_made_all_the_same(
    shared_slides: Path, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "plan.png"

    with pytest.raises(CommandError, match="no resolution"):
        inspect(settings, InspectOptions(shared_slides / "tcga-cr-7395-ts1.svs", overlay=path), as_json=True)

    assert cv2.imread(str(path)) is not None


def test_tissue_that_the_file_has_no_pixels_of_is_refused_and_what_is_there_is_drawn(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tiff(tmp_path / "lost.tif", SparseRecipe(lost=(10, 8, 13, 11)))

    report, _ = report_of(settings, InspectOptions(path, overlay=tmp_path / "lost.png"), capsys)

    assert report["error"]["code"] == "unreadable_slide"
    assert "has no pixels in the level-0 rectangle" in report["error"]["detail"]
    assert cv2.imread(str(tmp_path / "lost.png")) is not None


def test_of_files_with_levels_of_one_size_the_finest_is_read(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = [DicomLevel(512, 512, 0.5, [jpeg(GREEN)] * 4), *(DicomLevel(256, 256, it, [jpeg(GREEN)]) for it in (1, 2))]
    path = write_dicom(tmp_path / "series", levels, 256, 20, "YBR_FULL_422")

    report, _ = report_of(settings, InspectOptions(path.with_name("l2.dcm"), measure_encoder=False), capsys)

    assert [(level["width"], level["downsample"]) for level in report["levels"]] == [(512, 1), (256, 2)]


def test_a_slide_that_is_not_there_is_refused_before_anything_is_done(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is not a file") as caught:
        inspect(settings, InspectOptions(tmp_path / "none.svs"), as_json=False)

    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("mpp", [0.0, -1.0, 352.8, math.nan, math.inf])
def test_an_absurd_resolution_is_refused(slide: Path, settings: Settings, mpp: float) -> None:
    with pytest.raises(CommandError, match=r"between 0\.05 and 4") as caught:
        inspect(settings, InspectOptions(slide, mpp=mpp), as_json=False)

    assert caught.value.exit_code == ExitCode.USAGE


def test_an_overlay_that_is_no_png_is_refused_and_nothing_is_overwritten(slide: Path, settings: Settings) -> None:
    before = slide.stat()

    with pytest.raises(CommandError, match=r"name it like overlay\.png"):
        inspect(settings, InspectOptions(slide, overlay=slide), as_json=False)

    assert slide.stat() == before


def test_an_overlay_that_cannot_be_written_is_an_error(slide: Path, settings: Settings, tmp_path: Path) -> None:
    options = InspectOptions(slide, overlay=tmp_path / "nowhere" / "plan.png", measure_encoder=False)

    with pytest.raises(CommandError, match="cannot be written: No such file"):
        inspect(settings, options, as_json=True)


def test_a_model_that_is_not_here_is_planned_for_and_not_measured(
    slide: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    report, error = report_of(settings.model_copy(update={"model": "wsi-llava"}), InspectOptions(slide), capsys)

    assert error is None
    assert report["model"]["tile_px"] == 256
    assert report["estimate"]["note"] == "the model wsi-llava is not installed here"


def test_the_operators_choices_count(settings: Settings) -> None:
    chosen = inspected_model(settings.model_copy(update={"tile_reduction": "dct", "tile_dtype": "bfloat16"}))

    assert chosen.manifest.first_input.tiling.reduction == "dct"
    assert chosen.manifest.first_input.tile_encoder.dtype == "bfloat16"
    assert chosen.installed is not None
    assert chosen.installed.manifest == chosen.manifest
    assert chosen.installed.folder == PACKAGED / "demo"


def test_without_torch_the_slide_is_described_and_nothing_is_encoded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "encoders.tile_encoder.encode", None)

    rate = encode_rate(inspected_model(settings), "cpu")

    assert rate.tiles_per_s is None
    assert rate.note == "the worker's packages (torch, timm) are not installed here"


def test_a_device_that_is_not_there_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    rate = encode_rate(inspected_model(settings), "cuda")

    assert rate.tiles_per_s is None
    assert "no CUDA device" in (rate.note or "")


def test_a_gpu_that_is_full_is_said_and_the_slide_described_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("encoders.tile_encoder.encode.build_tile_encoder", full)

    rate = encode_rate(inspected_model(settings), "cpu")

    assert rate.tiles_per_s is None
    assert "too little memory" in (rate.note or "")


def test_every_reader_and_reason_has_words() -> None:
    assert set(READERS) == set(get_args(ReaderKind))
    assert set(REASONS) == set(get_args(ReaderReason))


def test_a_file_name_does_not_steer_the_terminal(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[2Jslide.svs"
    path.write_bytes(b"not a slide")
    report = command._empty_report(InspectOptions(path), inspected_model(settings))

    assert dict(report_lines(report))["slide"] == "[2Jslide.svs, 11 bytes, not opened"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (47.4, "47 s"), (600.0, "10 min"), (119.0, "119 s")]
)
def test_durations_have_no_more_digits_than_an_estimate(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.fixture(scope="module")
def levels(slide: Path) -> Path:
    """Of four regions of the slide."""
    slide_id = hashlib.sha256(slide.read_bytes()).hexdigest()
    drawn = replace(drawn_levels(slide_id=slide_id), level0_width=3072, level0_height=2560)
    write_levels(slide.with_name("levels.h5"), drawn)
    return slide.with_name("levels.h5")


def of_levels(slide: Path, levels: Path, overlay: Path | None = None, region: int | None = None) -> InspectOptions:
    return InspectOptions(slide, None, overlay, measure_encoder=False, levels=levels, region=region)


def test_levels_are_drawn_over_the_slide_they_are_of(
    slide: Path, levels: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "levels.png"

    report, error = report_of(settings, of_levels(slide, levels, path), capsys)

    assert error is None
    given = report["given"]
    assert (given["region_count"], given["region_px"], given["patches_per_region"], given["region"]) == (
        4,
        1024,
        5,
        None,
    )
    assert given["cells"] == dict.fromkeys(CELL_KINDS, 16)
    picture = cv2.imread(str(path))[:, :, ::-1]
    assert picture.shape[1] == 1536
    # Half as large: the first region begins at 256, and ends where the next begins.
    assert (picture[260:750, 256] == REGION_RGB).all()
    lines = dict(report_lines(report))
    assert lines["given"] == "4 regions of 1024 px, 5 patches of 256 px chosen of each"
    assert "16 neoplastic" in lines["cells"]


def test_one_region_is_drawn_at_its_own_pixels(
    slide: Path, levels: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "region.png"

    report, _ = report_of(settings, of_levels(slide, levels, path, 3), capsys)

    picture = cv2.imread(str(path))[:, :, ::-1]
    assert (picture.shape[1], report["given"]["region"], sum(report["given"]["cells"].values())) == (1024, 3, 24)
    drawn = read_levels(levels)
    with ReaderProcess(slide, reader_limits(settings)) as reader:
        plain = reader.part(TilePlace(1, *drawn.region_coords[3].tolist(), 1024, 1024))
    changed = (picture[:1024] != plain).any(axis=-1)
    free = np.ones((16, 16), bool)
    for x, y in ((drawn.patch_coords()[3] - drawn.region_coords[3]) // 64).tolist():
        free[max(0, y - 1) : y + 5, max(0, x - 1) : x + 5] = False
    free[0] = free[-1] = free[:, 0] = free[:, -1] = False
    # What is not near a chosen patch or the border is the slide as it is.
    blocks = changed.reshape(16, 64, 16, 64).any(axis=(1, 3))
    assert free.any()
    assert not (blocks & free).any()
    assert dict(report_lines(report))["given"].startswith("region 3 of 1024 px")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slide_id": "1" * 64}, "another slide's"),
        ({"level0_width": 4096}, "another slide's"),
        (None, "no file of levels"),
    ],
)
def test_levels_that_are_not_the_slides_are_refused(
    slide: Path, levels: Path, settings: Settings, tmp_path: Path, change: dict[str, Any] | None, said: str
) -> None:
    wrong = tmp_path / "wrong.h5"
    if change is None:
        wrong.write_bytes(levels.read_bytes()[:5_000])
    else:
        write_levels(wrong, replace(read_levels(levels), **change))

    with pytest.raises(CommandError, match=said):
        inspect(settings, of_levels(slide, wrong, tmp_path / "lost.png"), as_json=True)
    assert not (tmp_path / "lost.png").exists()


def test_levels_of_an_unknown_slide_are_shown_with_the_doubt(
    slide: Path, levels: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = tmp_path / "unknown.h5"
    write_levels(unknown, replace(read_levels(levels), slide_id=UNKNOWN_SLIDE))

    report, error = report_of(settings, of_levels(slide, unknown), capsys)

    assert error is None
    assert report["given"]["slide_id"] is None
    assert any(name == "doubt" and "which slide its levels are of" in str(said) for name, said in report_lines(report))


def test_a_region_that_is_none_is_refused(slide: Path, levels: Path, settings: Settings, tmp_path: Path) -> None:
    for region in (-1, 4):
        with pytest.raises(CommandError, match="from 0 to 3"):
            inspect(settings, of_levels(slide, levels, tmp_path / "lost.png", region), as_json=True)
    with pytest.raises(CommandError, match="give both"):
        inspect(settings, InspectOptions(slide, region=1), as_json=True)
