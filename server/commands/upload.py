"""`eyepiece upload`: sends slides and shows them being encoded.

bytes sent, from where they broke off → (a resolution or urgency asked for) → events until `ready` or `failed`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.piece_names import pieces_of
from server.commands.send_slide import SlideSender
from server.commands.slide_files import SlideFiles, slide_files
from server.commands.terminal import print_json, print_json_line, printable
from server.commands.upload_notes import UploadNotes
from server.commands.watch_folder import SentNotes, WatchedFolder, watch

_LOOK_EVERY_S = 5.0

STAGE_NAMES = {
    "tile": "find tissue",
    "encode_tiles": "encode tiles",
    "find_regions": "find regions",
    "encode_regions": "encode regions",
    "encode_slide": "encode slide",
}


@dataclass(frozen=True)
class UploadOptions:
    """What to upload, a file or the folder of a slide, and how to encode it; `mpp` in µm/px replaces what it says.
    `about` is what is said of it, by the names of a Slide's fields."""

    path: Path
    mpp: float | None = None
    urgent: bool = False
    files_at_once: int = 3
    about: Mapping[str, Any] = field(default_factory=dict)


def upload(client: ApiClient, slides: Sequence[UploadOptions], as_json: bool) -> None:
    """The command: progress to standard error, each Slide to standard output. One that fails does not keep those
    behind it from being sent.

    Raises:
        CommandError: a file is missing, the server refused it, or a slide failed; of several the first.
    """
    if not slides:
        raise CommandError("Name a slide file or folder, or a folder to --watch.", ExitCode.USAGE)
    console, failures = Console(stderr=True, quiet=as_json), list[CommandError]()
    for options in slides:
        try:
            slide = upload_and_wait(client, options, console)
        except CommandError as error:
            if len(slides) > 1:
                console.print(f"{printable(options.path.name)}: {error}", markup=False)
            failures.append(error)
            continue
        if not as_json:
            print(describe_slide(slide, client.models()))
        elif len(slides) == 1:
            print_json(slide)
        else:
            print_json_line(slide)
    if failures:
        raise failures[0]


def upload_watched(
    client: ApiClient, folder: Path, settle_s: float, options: Callable[[Path], UploadOptions], as_json: bool
) -> None:
    """The command with --watch: a line for each slide that was sent, or refused; their encodes are not waited for.

    Raises:
        CommandError: the folder is not there.
    """
    console = Console(stderr=True, quiet=as_json)

    def send_one(path: Path) -> dict[str, Any]:
        return encode_as_asked(client, send(client, options(path), console), options(path))

    def sent(path: Path, slide: dict[str, Any]) -> None:
        if as_json:
            print_json_line(slide)
        else:
            print(printable(f"sent: {path.name}, slide {slide['id']}"), flush=True)

    def refused(path: Path, error: CommandError) -> None:
        console.print(f"not sent: {printable(path.name)}: {error}", markup=False)

    def wait() -> bool:
        time.sleep(min(_LOOK_EVERY_S, max(settle_s, 0.1)))
        return True

    watched, notes = WatchedFolder(folder, settle_s), SentNotes(client.base_url, folder)
    watch(watched, notes, send_one, sent, refused, wait)


def encode_as_asked(client: ApiClient, slide: dict[str, Any], options: UploadOptions) -> dict[str, Any]:
    """The Slide, queued again where a resolution or urgency was asked for. What is said of it holds even when its
    upload was begun, in an earlier run, with other words."""
    changes = {name: it for name, it in options.about.items() if slide.get(name) != it}
    if changes:
        slide = client.change_slide(slide["id"], changes)
    if options.urgent or (options.mpp is not None and slide["mpp"] != options.mpp):
        return client.encode(slide["id"], options.mpp, options.urgent)
    return slide


def upload_and_wait(client: ApiClient, options: UploadOptions, console: Console) -> dict[str, Any]:
    """The ready Slide.

    Raises:
        CommandError: the file is missing, the server refused it, or the slide failed.
    """
    slide = encode_as_asked(client, send(client, options, console), options)
    if slide["status"] in ("queued", "encoding"):
        _follow(client, slide["id"], console)
        slide = client.slide(slide["id"])
    if slide["status"] == "failed":
        raise failed_slide(slide)
    return slide


def describe_slide(slide: dict[str, Any], models: Sequence[dict[str, Any]]) -> str:
    """For a person: what it is, what is doubtful about it, and its id, which every other command takes. `models` are
    the server's, whose first one sees the slide as tiles or as regions."""
    pieces = pieces_of(models)
    facts = f"{slide['width']} × {slide['height']} px at {slide['mpp']} µm/px, {slide['tile_count']} {pieces}"
    if slide["width"] is None or slide["mpp"] is None:  # precomputed features that do not say
        facts = f"{slide['vendor']}, {slide['tile_count'] or 'no'} {pieces}"
    doubts = "".join(f"\ndoubt: {warning['detail']}" for warning in slide.get("warnings", []))
    return printable(f"{slide['status']}: {slide['filename']}, {facts}{doubts}\nslide {slide['id']}")


def failed_slide(slide: dict[str, Any]) -> CommandError:
    """The slide's own error as the command's."""
    error = slide["error"] or {"code": "internal_error", "detail": "The slide failed; see the worker's log."}
    return CommandError(printable(error["detail"]), ExitCode.FAILED, error["code"])


def send(client: ApiClient, options: UploadOptions, console: Console) -> dict[str, Any]:
    """The Slide as it is when all its bytes are there; a bar for each file that is being sent."""
    found = slide_files(options.path)
    for name in found.left_out:
        console.print(f"left out: {printable(name)}", markup=False)
    notes = UploadNotes(client.base_url, options.path)
    columns = (TextColumn("{task.description:<13}"), BarColumn(), DownloadColumn(), SpeedColumn())
    with Progress(*columns, console=console) as progress:
        about = {name: ",".join(it) if isinstance(it, list) else it for name, it in options.about.items()}
        sender = SlideSender(client, _FileBars(progress, found), options.files_at_once, about=about)
        return sender.send(found, notes)


class _FileBars:
    """A bar for each file from its first byte to its last; the ones that are through make room."""

    def __init__(self, progress: Progress, found: SlideFiles) -> None:
        self._progress = progress
        self._files = found.files
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, sent: int) -> None:
        size_bytes = self._files[name].stat().st_size
        if name not in self._tasks:
            shown = "upload" if len(self._files) == 1 else printable(name)[-30:]
            self._tasks[name] = self._progress.add_task(shown, total=size_bytes)
        through = sent >= size_bytes and len(self._files) > 1
        self._progress.update(self._tasks[name], completed=sent, visible=not through)


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
