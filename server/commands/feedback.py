"""`eyepiece feedback`: what people thought of answers, as JSON lines. They hold what people typed."""

import re

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import print_json_line

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def export(client: ApiClient, since: str | None) -> None:
    """Prints all feedback that was given or changed from `since` on: a date (UTC), or a moment as in RFC 3339.

    Raises:
        CommandError: the server refused, the connection broke off, or some of it cannot be read any more.
    """
    damaged = 0
    for line in client.feedback(f"{since}T00:00:00Z" if since and _DATE.fullmatch(since) else since):
        print_json_line(line)
        damaged += line.get("object") == "feedback.damaged"
    if damaged:
        sentence = f"What was given for {damaged} turns cannot be read any more; the lines feedback.damaged name them."
        raise CommandError(sentence, ExitCode.FAILED)
