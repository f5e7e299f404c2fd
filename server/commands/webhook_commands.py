"""The commands of `eyepiece webhooks`."""

from typing import Annotated

import typer

from server.commands.options import AsJson, Key, Url, default_url

webhooks_app = typer.Typer(help="Who is told of slides, and what was not taken.", no_args_is_help=True)
EndpointName = Annotated[str, typer.Argument(help="The endpoint's name, as `webhooks list` shows it.")]


@webhooks_app.command("list")
def webhooks_list(url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Show who is told of the tenant's slides, and how many events wait or were given up."""
    from server.commands import webhooks
    from server.commands.api_client import ApiClient

    with ApiClient(url or default_url(), key) as client:
        webhooks.show_endpoints(client, as_json)


@webhooks_app.command("dead")
def webhooks_dead(endpoint: EndpointName, url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Show the events that an endpoint did not take, the newest first, and why."""
    from server.commands import webhooks
    from server.commands.api_client import ApiClient

    with ApiClient(url or default_url(), key) as client:
        webhooks.show_dead(client, endpoint, as_json)


@webhooks_app.command("replay")
def webhooks_replay(
    endpoint: EndpointName,
    events: Annotated[
        list[str] | None, typer.Argument(help="Ids of events among the dead letters.", show_default="all of them")
    ] = None,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Try events again that were given up."""
    from server.commands import webhooks
    from server.commands.api_client import ApiClient

    with ApiClient(url or default_url(), key) as client:
        webhooks.replay(client, endpoint, events or [], as_json)
