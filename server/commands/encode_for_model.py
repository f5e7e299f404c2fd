"""Slides made ready for the model that is asked, whichever the server's default is."""

from collections.abc import Iterable
from typing import Any

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.upload import failed_slide


def served_model(models: Iterable[str], wanted: str | None) -> str:
    """The one that is meant among the server's, the first of which is its default.

    Raises:
        CommandError: it has none of that name.
    """
    names = list(models)
    name = wanted or names[0]
    if name not in names:
        raise CommandError(f"The server has no model {name}; it has {', '.join(names)}.", ExitCode.USAGE)
    return name


def encoder_of(slide: dict[str, Any], model: str) -> str | None:
    """The encoder whose embedding of the slide the model would be asked about now; None where there is none."""
    ready = (it for it in slide["encodings"] if it["model"] == model and it["status"] == "ready")
    return next((str(it["encoder_id"]) for it in ready), None)


def ready_encoder(client: ApiClient, slide: dict[str, Any], model: str) -> str:
    """The same, after the slide was encoded where it has to be.

    Raises:
        CommandError: the server refused, or the slide failed.
    """
    if (found := encoder_of(slide, model)) is not None:
        return found
    client.encode(slide["id"], None, urgent=False, model=model)
    *_, last = client.encode_events(slide["id"], model)
    slide = client.slide(slide["id"])
    if last.name == "failed" or (found := encoder_of(slide, model)) is None:
        raise failed_slide(slide)
    return found
