"""The commands of `eyepiece audit`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.commands.options import AsJson, DataDir, settings_from

audit_app = typer.Typer(help="The log of who did what.", no_args_is_help=True)
AuditDir = Annotated[Path | None, typer.Option(help="Folder of the log.", show_default="EYEPIECE_AUDIT_DIR")]
Also = Annotated[
    list[Path] | None,
    typer.Option(help="A folder with more of the log's files, e.g. of another machine; may be repeated."),
]


@audit_app.command("verify")
def audit_verify(
    audit_dir: AuditDir = None, also: Also = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Find lines that were removed, changed, moved or cut off; exit code 1 when there are any."""
    from server.commands import audit

    audit.verify(settings_from(audit_dir=audit_dir, data_dir=data_dir), also or [], as_json)


@audit_app.command("export")
def audit_export(
    tenant: Annotated[str | None, typer.Option(help="Only lines of this tenant.", show_default="all of them")] = None,
    since: Annotated[str | None, typer.Option(help="From this day or moment on, e.g. 2026-11-01.")] = None,
    output_format: Annotated[
        Literal["jsonl", "fhir"], typer.Option("--format", help="Lines as written, or FHIR R4 AuditEvents as NDJSON.")
    ] = "jsonl",
    audit_dir: AuditDir = None,
    also: Also = None,
    data_dir: DataDir = None,
) -> None:
    """Print the log for an auditor, verified while it is read; exit code 1 when something is wrong with it."""
    from server.commands import audit

    options = audit.ExportOptions(tenant, since, output_format == "fhir")
    audit.export(settings_from(audit_dir=audit_dir, data_dir=data_dir), also or [], options)
