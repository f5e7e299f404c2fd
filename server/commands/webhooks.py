"""`eyepiece webhooks`: who is told of the tenant's slides, what was not taken, and telling it again."""

from collections.abc import Sequence
from typing import Any

from server.commands.api_client import ApiClient
from server.commands.terminal import print_json, printable


def show_endpoints(client: ApiClient, as_json: bool) -> None:
    """A line for each endpoint of the key's tenant."""
    listed = client.webhooks()
    if as_json:
        print_json(listed)
        return
    for endpoint in listed["data"]:
        counts = f"{endpoint['waiting']} waiting, {endpoint['dead']} given up"
        print(printable(f"{endpoint['name']}  {endpoint['host']}  {', '.join(endpoint['events'])}  {counts}"))
    if not listed["data"]:
        print("Nobody is told of slides of this tenant. The operator names receivers in EYEPIECE_WEBHOOKS.")


def show_dead(client: ApiClient, endpoint: str, as_json: bool) -> None:
    """A line for each event that the endpoint did not take, the newest first."""
    listed = client.dead_webhooks(endpoint)
    if as_json:
        print_json(listed)
        return
    for letter in listed["data"]:
        print(printable(f"{letter['id']}  {letter['type']}  slide {letter['slide_id'][:12]}  {_why(letter)}"))
    if not listed["data"]:
        print("Nothing was given up.")


def replay(client: ApiClient, endpoint: str, events: Sequence[str], as_json: bool) -> None:
    """Has the dead letters tried again, all of them or these."""
    replayed = client.replay_webhooks(endpoint, list(events))
    if as_json:
        print_json(replayed)
        return
    count = replayed["replayed"]
    print(f"{count} {'event is' if count == 1 else 'events are'} tried again.")


def _why(letter: dict[str, Any]) -> str:
    reason = letter["reason"] if letter["status"] is None else f"{letter['reason']} {letter['status']}"
    tried = f", last at {letter['tried_at']}" if letter["tried_at"] else ""
    return f"{reason} after {letter['attempts']} attempts{tried}"
