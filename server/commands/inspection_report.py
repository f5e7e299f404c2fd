"""The report of `eyepiece inspect` for a person: one line for each thing that is known."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from encoders.tiling.slide_readers.reader_kind import ReaderKind, ReaderReason
from server.commands.terminal import printable

READERS: dict[ReaderKind, str] = {"fast_tiff": "fast TIFF reader", "openslide": "OpenSlide"}
REASONS: dict[ReaderReason, str] = {
    "eligible": "tiled JPEG, and equal to OpenSlide in a check on opening",
    "other_vendor": "the format is neither Aperio nor generic TIFF",
    "unreadable_directory": "the TIFF directory is damaged or unusual",
    "too_many_tiles": "the file has more tiles than the fast reader keeps track of",
    "levels_do_not_match": "the file's images are not OpenSlide's levels",
    "other_tile_size": "the tiles are too large for the fast reader",
    "other_compression": "the tiles are not JPEG",
    "other_pixel_format": "the pixels are not 8-bit RGB or YCbCr",
    "missing_tiles": "tiles are missing, which OpenSlide draws from other levels",
    "other_downsample": "the level's scale is not a whole number",
    "other_jpeg": "a JPEG stream is damaged, or not what the directory says",
    "self_check_differs": "the fast reader's pixels differed from OpenSlide's in a check on opening",
}
_SOURCES = {"property": "as the file says", "override": "as you gave it"}
# Less is a speck that no tile notices.
_PEN_WORTH_A_WARNING = 0.001


def print_report(report: dict[str, Any]) -> None:
    """Prints what is known of the slide to standard output."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, value in report_lines(report):
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    Console(highlight=False, soft_wrap=True).print(table)


def report_lines(report: dict[str, Any]) -> Iterator[tuple[str, str | Text]]:
    """(name, value) of each line; lines of what is not known are left out."""
    yield "slide", f"{printable(report['file'])}, {decimal(report['bytes'])}, {report['format'] or 'not opened'}"
    if report["width"] is not None:
        yield "size", _size(report)
        yield "resolution", _resolution(report)
        yield "reader", f"{READERS[report['reader']]}: {REASONS[report['reader_reason']]}"
    yield from _levels(report["levels"])
    model = report["model"]
    yield "model", f"{model['name']}: {_seen_by(model)}"
    yield from _findings(report)
    if report["given"]:
        yield from _given(report["given"])
    for warning in report["warnings"]:
        yield "doubt", Text(printable(warning["detail"]), style="yellow")
    yield from _estimate(report["estimate"])
    if report["overlay"]:
        yield "overlay", printable(report["overlay"])


def duration(seconds: float) -> str:
    """About how long, with no more digits than an estimate has."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _seen_by(model: dict[str, Any]) -> str:
    if model["target_mpp"] is None:
        return f"regions of {model['tile_px']} px of level 0"
    return f"tiles of {model['tile_px']} px at {model['target_mpp']:g} µm/px"


def _given(given: dict[str, Any]) -> Iterator[tuple[str, str | Text]]:
    """What a model was given, of one region or of all."""
    regions = f"{given['region_count']} regions" if given["region"] is None else f"region {given['region']}"
    chosen = f"{given['patches_per_region']} patches of {given['patch_px']} px chosen of each"
    yield "given", f"{regions} of {given['region_px']} px, {chosen}"
    if given["cells"] is None:
        yield "cells", "nobody knows which"
    else:
        kinds = (f"{number:,} {kind}" for kind, number in given["cells"].items() if number)
        yield "cells", ", ".join(kinds) or "none"
    if given["slide_id"] is None:
        doubt = "The file does not say which slide its levels are of; no more than the size was compared."
        yield "doubt", Text(doubt, style="yellow")


def _size(report: dict[str, Any]) -> str:
    size = f"{report['width']:,} × {report['height']:,} px"
    if report["mpp"] is None:
        return size
    return f"{size}, {report['width'] * report['mpp'] / 1e3:.2f} × {report['height'] * report['mpp'] / 1e3:.2f} mm"


def _resolution(report: dict[str, Any]) -> str | Text:
    power = f"; objective {report['objective_power']:g}×" if report["objective_power"] else ""
    if report["mpp"] is None:
        return Text(f"not stated, or absurd: give --mpp{power}", style="yellow")
    return f"{report['mpp']:.4g} µm/px, {_SOURCES[report['mpp_source']]}{power}"


def _levels(levels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for index, level in enumerate(levels):
        parts = [f"{level['width']:,} × {level['height']:,} px", f"1/{level['downsample']:.4g}"]
        parts += [f"{level['mpp']:.4g} µm/px"] if level["mpp"] is not None else []
        parts += ["tiles of {} × {}".format(*level["tile_size"])] if level["tile_size"] else []
        yield f"level {index}", ", ".join(parts)


def _findings(report: dict[str, Any]) -> Iterator[tuple[str, str | Text]]:
    if report["tissue_share"] is not None:
        yield "tissue", f"{report['tissue_share']:.1%} of the slide"
        yield "pen", _pen(report["pen_share"])
    plan = report["plan"]
    if plan is not None:
        what = "regions" if report["model"]["target_mpp"] is None else "tiles"
        yield what, f"{plan['tile_count']:,}, each {plan['tile_px_level0']:g} px of level 0"
        yield "read as", _scale(plan, report["model"]["tile_px"])


def _pen(share: float) -> str | Text:
    if share < _PEN_WORTH_A_WARNING:
        return "none found"
    words = f"{share:.1%} of the tissue lies under pen, or has other colours than H&E; it is encoded like the rest"
    return Text(words, style="yellow")


def _scale(plan: dict[str, Any], tile_px: int) -> str:
    if plan["read_px"] == tile_px:
        return f"{tile_px} px of level {plan['level']}, as they are"
    if plan["read_px"] < tile_px:
        return f"{plan['read_px']} px of level {plan['level']}, enlarged to {tile_px}"
    way = "in the JPEG decoder" if plan["reduction"] == "dct" else "by area"
    return f"{plan['read_px']} px of level {plan['level']}, reduced to {tile_px} {way}"


def _estimate(estimate: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if estimate is None:
        return
    yield (
        "to read",
        f"about {duration(estimate['read_s'])} ({estimate['read_tiles_per_s']:,.0f} tiles/s on this machine)",
    )
    if estimate["encode_s"] is None:
        yield "to encode", f"not measured: {estimate['note']}"
        return
    rate = f"{estimate['encode_tiles_per_s']:,.0f} tiles/s on {estimate['device']}"
    yield "to encode", f"about {duration(estimate['encode_s'])} ({rate}), while reading"
