"""`eyepiece upload`: sends a slide and shows it being encoded.

bytes sent → (a resolution or urgency asked for) → events until `ready` or `failed`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.slide_files import SlideFiles, slide_files
from server.commands.terminal import print_json, printable

STAGE_NAMES = {
    "tile": "find tissue",
    "encode_tiles": "encode tiles",
    "find_regions": "find regions",
    "encode_regions": "encode regions",
    "encode_slide": "encode slide",
}


@dataclass(frozen=True)
class UploadOptions:
    """What to upload, a file or the folder of a slide, and how to encode it; `mpp` in µm/px replaces what it says."""

    path: Path
    mpp: float | None = None
    urgent: bool = False


def upload(client: ApiClient, options: UploadOptions, as_json: bool) -> None:
    """The command: progress to standard error, the Slide to standard output.

    Raises:
        CommandError: the file is missing, the server refused it, or the slide failed.
    """
    slide = upload_and_wait(client, options, Console(stderr=True, quiet=as_json))
    if as_json:
        print_json(slide)
    else:
        print(describe_slide(slide, client.models()))


def upload_and_wait(client: ApiClient, options: UploadOptions, console: Console) -> dict[str, Any]:
    """The ready Slide.

    Raises:
        CommandError: the file is missing, the server refused it, or the slide failed.
    """
    found = slide_files(options.path)
    for name in found.left_out:
        console.print(f"left out: {printable(name)}", markup=False)
    slide = _send(client, found, console)
    if options.urgent or (options.mpp is not None and slide["mpp"] != options.mpp):
        slide = client.encode(slide["id"], options.mpp, options.urgent)
    if slide["status"] in ("queued", "encoding"):
        _follow(client, slide["id"], console)
        slide = client.slide(slide["id"])
    if slide["status"] == "failed":
        raise failed_slide(slide)
    return slide


def describe_slide(slide: dict[str, Any], models: Sequence[dict[str, Any]]) -> str:
    """For a person: what it is, what is doubtful about it, and its id, which every other command takes. `models` are
    the server's, whose first one sees the slide as tiles or as regions."""
    pieces = "regions" if models[0].get("kind") == "levels" else "tiles"
    facts = f"{slide['width']} × {slide['height']} px at {slide['mpp']} µm/px, {slide['tile_count']} {pieces}"
    if slide["width"] is None or slide["mpp"] is None:  # precomputed features that do not say
        facts = f"{slide['vendor']}, {slide['tile_count'] or 'no'} {pieces}"
    doubts = "".join(f"\ndoubt: {warning['detail']}" for warning in slide.get("warnings", []))
    return printable(f"{slide['status']}: {slide['filename']}, {facts}{doubts}\nslide {slide['id']}")


def failed_slide(slide: dict[str, Any]) -> CommandError:
    """The slide's own error as the command's."""
    error = slide["error"] or {"code": "internal_error", "detail": "The slide failed; see the worker's log."}
    return CommandError(printable(error["detail"]), ExitCode.FAILED, error["code"])


def _send(client: ApiClient, found: SlideFiles, console: Console) -> dict[str, Any]:
    columns = (TextColumn("{task.description:<13}"), BarColumn(), DownloadColumn(), SpeedColumn())
    size_bytes = found.size_bytes
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("upload", total=size_bytes)
        slide = client.upload_files(found.files, lambda sent: progress.update(task, completed=sent))
        progress.update(task, completed=size_bytes)
    return slide


def _follow(client: ApiClient, slide_id: str, console: Console) -> None:
    with _stage_bars(console) as show:
        for event in client.encode_events(slide_id):
            if event.name == "progress":
                show(event.data["stage"], event.data["done"], event.data["total"])


class _StageBars:
    """One bar for each stage, added when it is first heard of."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            name = STAGE_NAMES.get(stage, printable(stage))
            self._tasks[stage] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)


@contextmanager
def _stage_bars(console: Console) -> Iterator[_StageBars]:
    with Progress(TextColumn("{task.description:<13}"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
        yield _StageBars(progress)
