"""`eyepiece slides`: list what is on the server, look at one, delete one."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.commands.api_client import ApiClient
from server.commands.find_slide import find_slide, slide_line
from server.commands.outcome import CommandError, ExitCode
from server.commands.piece_names import pieces_of
from server.commands.terminal import print_json, printable

_PAGE = 100
_SAID = ("accession", "case", "patient_ref", "stain", "body_site")


@dataclass(frozen=True)
class ListOptions:
    """Which slides, newest first; `most` None for all of them. `about` is what is said of them, by the names of that
    route's parameters."""

    status: str | None = None
    name: str | None = None
    most: int | None = 20
    about: Mapping[str, str] = field(default_factory=dict)


def list_slides(client: ApiClient, options: ListOptions, as_json: bool) -> None:
    """Prints slides, newest first.

    Raises:
        CommandError: the server refused.
    """
    asked = {"status": options.status or "", "name": options.name or "", **options.about}
    query: dict[str, str | int] = {name: value for name, value in asked.items() if value}
    slides: list[dict[str, Any]] = []
    cursor, complete = "", True
    while options.most is None or len(slides) < options.most:
        limit = _PAGE if options.most is None else min(_PAGE, options.most - len(slides))
        page = client.slides(**query, limit=limit, **({"cursor": cursor} if cursor else {}))
        slides += page["data"]
        complete = complete and page["complete"]
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    if as_json:
        print_json({"slides": slides, "more": bool(cursor), "complete": complete})
        return
    for slide in slides:
        print(slide_line(slide))
    if not slides:
        print("No slides." if not query else "No such slides.")
    if cursor:
        print(f"There are more: --limit {2 * len(slides) or _PAGE}, or --all.")
    if not complete:
        print("Older slides may be missing: the server is still going through an older release's.")


def show_slide(client: ApiClient, said: str, as_json: bool) -> None:
    """Prints one slide.

    Raises:
        CommandError: no slide is meant, or several could be, or the server refused.
    """
    slide = find_slide(client, said)
    if as_json:
        print_json(slide)
    else:
        print(slide_text(slide, client.models()))


def describe_slide(client: ApiClient, said: str, changes: Mapping[str, Any], as_json: bool) -> None:
    """Changes what is said of one slide, and prints it; an empty text says nothing any more.

    Raises:
        CommandError: as `show_slide`; or nothing is to be changed.
    """
    if not changes:
        raise CommandError("Say what to change, e.g. --case; an empty text takes it away.", ExitCode.USAGE)
    cleared = {name: None if it in ("", [""]) else it for name, it in changes.items()}
    slide = client.change_slide(str(find_slide(client, said)["id"]), cleared)
    if as_json:
        print_json(slide)
    else:
        print(slide_text(slide, client.models()))


def delete_slide(client: ApiClient, said: str, *, yes: bool, as_json: bool) -> None:
    """Deletes one slide, after asking whoever sits there.

    Raises:
        CommandError: as `show_slide`; or nobody said yes.
    """
    slide = find_slide(client, said)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("Deleting cannot be undone: say --yes where nobody can be asked.", ExitCode.USAGE)
        sys.stderr.write(f"{slide_line(slide)}\n")
        sys.stderr.write("Delete it with its features, conversations and feedback? It cannot be undone. [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was deleted.", ExitCode.USAGE)
    client.delete_slide(str(slide["id"]))
    if as_json:
        print_json({"deleted": slide["id"]})
    else:
        print(f"deleted: {slide_line(slide)}")


def slide_text(slide: dict[str, Any], models: Sequence[dict[str, Any]]) -> str:
    """All that a person may want to know of a slide; `models` are the server's."""
    mib = slide["size_bytes"] / 2**20
    lines = [
        f"slide      {slide['id']}",
        f"file       {slide['filename']} ({mib:.1f} MiB), {slide['vendor'] or 'unknown'}",
    ]
    if slide["width"] is not None:
        objective = f", {slide['objective_power']:g}×" if slide["objective_power"] else ""
        lines.append(f"pixels     {slide['width']} × {slide['height']} at {slide['mpp'] or 'unknown'} µm/px{objective}")
    lines += [f"{name.removesuffix('_ref').replace('_', ' '):<10} {slide[name]}" for name in _SAID if slide.get(name)]
    if slide.get("labels"):
        lines.append(f"labels     {', '.join(slide['labels'])}")
    lines.append(f"uploaded   {str(slide['created_at'])[:19].replace('T', ' ')} UTC")
    encodings = slide["encodings"] or [slide | {"model": "status"}]
    for it in encodings:
        tiles = "" if it["tile_count"] is None else f", {it['tile_count']} {pieces_of(models, it['model'])}"
        lines.append(
            f"{it['model']:<10} {it['status']}{tiles}" + (f", encoder {it['encoder_id']}" if it["encoder_id"] else "")
        )
        if it["error"] is not None:
            lines.append(f"           {it['error']['code']}: {it['error']['detail']}")
    lines += [f"doubt      {warning['detail']}" for warning in slide["warnings"]]
    return printable("\n".join(lines))
