"""`eyepiece levels …`: each command's work is in `server.commands.levels`, imported when it is run."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands.options import settings_from

levels_app = typer.Typer(help="Files of levels, and the files of MLLM-HWSI's public code.", no_args_is_help=True)

_SidePx = Annotated[
    int | None, typer.Option(min=1, help="Of the slide, in pixels of level 0.", show_default="as --slide says")
]


@levels_app.command("import")
def levels_import(
    folder: Annotated[Path, typer.Argument(help="Holds patches_filtered, region_4k, wsi, cells and so on.")],
    out: Annotated[Path, typer.Argument(help="A new file of levels, e.g. levels.h5.")],
    stem: Annotated[
        str | None, typer.Option("--id", help="What the slide's files are named by.", show_default="the slide's stem")
    ] = None,
    slide: Annotated[
        Path | None, typer.Option(help="The slide's file, which says its size.", show_default=False)
    ] = None,
    width: _SidePx = None,
    height: _SidePx = None,
    region_px: Annotated[int, typer.Option(min=256, max=4096, help="Side of a region in pixels of level 0.")] = 4096,
) -> None:
    """Make a file of levels from what MLLM-HWSI's public code kept of a slide."""
    from server.commands import levels

    options = levels.ImportOptions(folder, out, stem, slide, width, height, region_px)
    levels.import_levels(settings_from(), options)


@levels_app.command("export")
def levels_export(
    file: Annotated[Path, typer.Argument(help="A file of levels, as `GET /v1/slides/{id}/features` gives it.")],
    folder: Annotated[Path, typer.Argument(help="Gets patches_filtered, region_4k, wsi, cells and so on.")],
    stem: Annotated[
        str | None, typer.Option("--id", help="What to name the files by.", show_default="the slide's id")
    ] = None,
) -> None:
    """Write a file of levels as the files that MLLM-HWSI's public code reads."""
    from server.commands import levels

    levels.export_levels(file, folder, stem)
