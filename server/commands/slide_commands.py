"""`eyepiece slides …`: the work is in `server.commands.slides`, imported when it is run."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from server.commands.options import (
    NOTHING_SAID,
    AsJson,
    Key,
    SlideArgument,
    Url,
    default_url,
    looks_for_slides,
    says_of_slides,
)
from server.commands.terminal import argument_text

slides_app = typer.Typer(help="The slides on the server.", no_args_is_help=True)


@slides_app.command("list")
@looks_for_slides
def slides_list(  # noqa: PLR0913 - one for each option
    status: Annotated[
        str | None, typer.Option(help="queued, encoding, ready or failed.", show_default="all of them")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A part of the file name.", show_default="any")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All of them, whatever the limit.")] = False,
    about: Mapping[str, Any] = NOTHING_SAID,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Show slides, newest first."""
    from server.commands.api_client import ApiClient
    from server.commands.slides import ListOptions, list_slides

    with ApiClient(url or default_url(), key) as client:
        list_slides(client, ListOptions(status, name, None if everything else limit, about), as_json)


@slides_app.command("show")
def slides_show(slide: SlideArgument, url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Show one slide: size, resolution, encodings, doubts."""
    from server.commands.api_client import ApiClient
    from server.commands.slides import show_slide

    with ApiClient(url or default_url(), key) as client:
        show_slide(client, argument_text(slide), as_json)


@slides_app.command("describe")
@says_of_slides
def slides_describe(
    slide: SlideArgument,
    about: Mapping[str, Any] = NOTHING_SAID,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Change what is said of a slide; an empty text takes it away."""
    from server.commands.api_client import ApiClient
    from server.commands.slides import describe_slide

    with ApiClient(url or default_url(), key) as client:
        describe_slide(client, argument_text(slide), about, as_json)


@slides_app.command("delete")
def slides_delete(
    slide: SlideArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Delete one slide with all that was made of it."""
    from server.commands.api_client import ApiClient
    from server.commands.slides import delete_slide

    with ApiClient(url or default_url(), key) as client:
        delete_slide(client, argument_text(slide), yes=yes, as_json=as_json)
