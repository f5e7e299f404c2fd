"""Which slide a person means: its id, the beginning of its id, its file name, or its files here."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.slide_files import slide_files
from server.commands.terminal import printable
from server.uploads.slide_identity import ListedFile, slide_id_of

LEAST_DIGITS = 6
_ID = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(r"[0-9a-fA-F]{6,63}")
_MOST_SHOWN = 10


def find_slide_id(client: ApiClient, said: str) -> str:
    """The slide's id; a whole one is not asked for.

    Raises:
        CommandError: no slide is meant, or several could be, or the server refused.
    """
    return said if _ID.fullmatch(said) else str(find_slide(client, said)["id"])


def find_slide(client: ApiClient, said: str) -> dict[str, Any]:
    """The Slide.

    Raises:
        CommandError: as `find_slide_id`.
    """
    if _ID.fullmatch(said):
        return client.slide(said)
    found: list[dict[str, Any]] = []
    if _BEGINNING.fullmatch(said):
        found = client.slides(id=said.lower(), limit=100)["data"]
    known = {slide["id"] for slide in found}  # 123456 begins an id, and may be the name of another slide
    found += [slide for slide in _of_name(client, said) if slide["id"] not in known]
    if not found and Path(said).name and Path(said).exists():
        return _of_files(client, Path(said))
    if not found:
        raise CommandError(
            f"No slide has the id or file name {printable(said)!r}: `eyepiece slides list` shows what there is. "
            f"Of an id at least {LEAST_DIGITS} digits are needed.",
            ExitCode.REFUSED,
            "not_found",
        )
    if len(found) > 1 and Path(said).is_file():
        found = [slide for slide in found if slide["id"] in _ids_of(Path(said))] or found
    if len(found) > 1:
        raise CommandError(_ambiguous(said, found), ExitCode.USAGE)
    _refuse_other_file(said, found[0])
    return found[0]


def _of_name(client: ApiClient, said: str) -> list[dict[str, Any]]:
    """All slides whose file name this is, in upper or lower case; where there are none, those whose name it is without
    its ending. Of a path, its last part is the name."""
    name, cursor = Path(said).name, ""
    whole: list[dict[str, Any]] = []
    without_ending: list[dict[str, Any]] = []
    while name:
        page = client.slides(name=name, limit=100, **({"cursor": cursor} if cursor else {}))
        for slide in page["data"]:
            filename = str(slide["filename"])
            if filename.casefold() == name.casefold():
                whole.append(slide)
            elif Path(filename).stem.casefold() == name.casefold():
                without_ending.append(slide)
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    return whole or without_ending


def _of_files(client: ApiClient, path: Path) -> dict[str, Any]:
    """The slide that is made of a file here, its series, or the files of a folder, whatever it is called there.

    Raises:
        CommandError: they are no slide, or not there.
    """
    for slide_id in _ids_of(path):
        try:
            return client.slide(slide_id)
        except CommandError as error:
            if error.problem_code != "not_found":
                raise
    raise CommandError(
        f"No slide on the server has the content of {printable(str(path))}: upload it, or `eyepiece slides list` "
        "shows what there is.",
        ExitCode.REFUSED,
        "not_found",
    )


def _ids_of(path: Path) -> Iterator[str]:
    """What a slide there may have for an id that a file here belongs to: the file's, or that of its whole series."""
    yield _id_of(path)
    if path.suffix.lower() == ".dcm":
        with suppress(CommandError):  # a folder of other things as well
            yield _id_of(path.parent)


def _id_of(path: Path) -> str:
    files = slide_files(path).files
    return slide_id_of(ListedFile(name, file.stat().st_size, _digest(file)) for name, file in files.items())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other_file(said: str, slide: dict[str, Any]) -> None:
    """A file here that has the name of a slide there, and other content, is another one: the id is the digest.

    Raises:
        CommandError: it is.
    """
    path = Path(said)
    if not path.is_file() or path.suffix.lower() == ".mrxs":  # its folder may be elsewhere
        return
    if slide["id"] not in _ids_of(path):
        raise CommandError(
            f"The file {printable(said)} here is not the slide of that name on the server, which has other content: "
            f"upload it, or name the slide by its id {slide['id'][:12]}.",
            ExitCode.USAGE,
        )


def _ambiguous(said: str, found: list[dict[str, Any]]) -> str:
    shown = "".join(f"\n  {slide_line(slide)}" for slide in found[:_MOST_SHOWN])
    more = f"\n  and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return f"{printable(said)!r} can be {len(found)} slides; name one by its id:{shown}{more}"


def slide_line(slide: dict[str, Any]) -> str:
    """A slide in a list for people: as much of its id as tells it from others, state, day and name."""
    created = str(slide["created_at"])[:16].replace("T", " ")
    return printable(f"{slide['id'][:12]}  {slide['status']:<8}  {created}  {slide['filename']}")
