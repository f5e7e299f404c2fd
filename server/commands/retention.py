"""`eyepiece tenants retention`: which slides would go by the days that are set, or by others; nothing is deleted."""

import asyncio
from collections.abc import Awaitable, Callable

from server.commands.terminal import print_json
from server.settings import Settings
from server.slides.due_slides import DueSlides

Finding = Callable[[Settings], Awaitable[list[DueSlides]]]


def show_due(settings: Settings, finding: Finding, as_json: bool) -> None:
    """The command: a line for each tenant whose slides are not kept for ever; as JSON with the slides' ids."""
    found = asyncio.run(_found(settings, finding))
    if as_json:
        print_json({"tenants": [_as_json(it) for it in found]})
        return
    for it in found:
        print(_line(it))
    if not found:
        print("All slides are kept for ever: EYEPIECE_RETAIN_DAYS is not set for any tenant that has some.")


async def _found(settings: Settings, finding: Finding) -> list[DueSlides]:
    return await finding(settings)


def _line(due: DueSlides) -> str:
    if not due.slides:
        return f"{due.tenant}: kept {due.days} days, nothing would go"
    size_gb = sum(it.size_bytes for it in due.slides) / 1e9
    oldest, newest = due.slides[-1].created_at, due.slides[0].created_at
    return (
        f"{due.tenant}: kept {due.days} days, {len(due.slides)} slides of {size_gb:.3f} GB would go, "
        f"uploaded {oldest:%Y-%m-%d} to {newest:%Y-%m-%d}"
    )


def _as_json(due: DueSlides) -> dict[str, object]:
    slides = [{"id": it.id, "created_at": it.created_at.isoformat(), "bytes": it.size_bytes} for it in due.slides]
    return {
        "tenant": due.tenant,
        "days": due.days,
        "bytes": sum(it.size_bytes for it in due.slides),
        "slides": slides,
    }
