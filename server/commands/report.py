"""`eyepiece report`: has a report written about a slide, or takes one that is kept, in the form that is asked for."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.report_as_sr import report_as_sr, require_sr
from server.commands.terminal import printable

FORMATS = ("text", "json", "pdf", "fhir", "sr")
# What no terminal shows.
_FILES = {
    "pdf": "A PDF goes to a file: say --out report.pdf.",
    "sr": "A DICOM SR goes to a file: say --out report.dcm.",
}


@dataclass(frozen=True)
class ReportOptions:
    """Which report and how: `number` takes one that is kept; else a new one is written, by the questions in `template`
    or by the server's own. It goes to the file `out`, or to standard output."""

    slide_id: str
    form: str = "text"
    out: Path | None = None
    template: Path | None = None
    model: str | None = None
    number: int | None = None


def report(client: ApiClient, options: ReportOptions) -> None:
    """The command: sections on standard error as they are written, then the report.

    Raises:
        CommandError: an option makes no sense, the server refused, or a section broke off: nothing is kept then.
    """
    _refuse_nonsense(options)
    body = _body(options)  # read before a model is asked
    if options.form == "sr":
        require_sr(client, options.slide_id)
    number = options.number or _write(client, options.slide_id, body)
    content = _content(client, options, number)
    if options.out is None:
        sys.stdout.write(content.decode().rstrip("\n") + "\n")
        return
    try:
        with options.out.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise CommandError(
            f"{options.out} cannot be written ({error.strerror}); report {number} is kept: say --number {number}.",
            ExitCode.FAILED,
        ) from error
    print(printable(f"report {number} of slide {options.slide_id[:12]}: {options.out}"))


def _content(client: ApiClient, options: ReportOptions, number: int) -> bytes:
    if options.form == "sr":
        return report_as_sr(client, options.slide_id, number)
    return client.report(options.slide_id, number, options.form)


def _refuse_nonsense(options: ReportOptions) -> None:
    if options.form not in FORMATS:
        raise CommandError(f"--format is one of {', '.join(FORMATS)}.", ExitCode.USAGE)
    if options.form in _FILES and options.out is None:
        raise CommandError(_FILES[options.form], ExitCode.USAGE)
    if options.out is not None and options.out.exists():
        raise CommandError(f"{options.out} exists already; name another file.", ExitCode.USAGE)
    if options.number is not None and (options.template is not None or options.model is not None):
        raise CommandError("--number takes a report that is kept; leave --template and --model out.", ExitCode.USAGE)


def _body(options: ReportOptions) -> dict[str, Any]:
    """The body of the route."""
    body: dict[str, Any] = {}
    if options.template is not None:
        try:
            body = json.loads(options.template.read_bytes())
        except (OSError, ValueError) as error:
            raise CommandError(
                f"{options.template} cannot be read as JSON; docs/api.md shows what a template is.", ExitCode.USAGE
            ) from error
        if not isinstance(body, dict):
            raise CommandError(f"{options.template} must be a JSON object with `sections`.", ExitCode.USAGE)
    return body | ({"model": options.model} if options.model else {}) | {"stream": True}


def _write(client: ApiClient, slide_id: str, body: dict[str, Any]) -> int:
    """A new report, shown while it is written; its number."""
    for event in client.report_events(slide_id, body):
        if event.name == "report":
            _say(f"{event.data['notice']}\n")
        elif event.name == "section":
            _say(f"{event.data['section']}. {event.data['heading']}: {event.data['answer']}\n")
        elif event.name == "done":
            return int(event.data["number"])
        elif event.name == "error":
            raise CommandError(
                printable(f"{event.data['detail']} No report was kept."), ExitCode.FAILED, event.data["code"]
            )
    raise CommandError(
        "The connection broke off before the report was written to its end: ask for its list, or again.",
        ExitCode.UNREACHABLE,
    )


def _say(text: str) -> None:
    sys.stderr.write(printable(text))
    sys.stderr.flush()
