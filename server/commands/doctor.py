"""`eyepiece doctor`: every check, one line each, and what to do about those that fail."""

from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from server.commands.checks import CheckState, Finding, all_checks
from server.commands.outcome import ExitCode
from server.commands.terminal import print_json
from server.settings import Settings

STYLES: dict[CheckState, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(settings: Settings, as_json: bool) -> ExitCode:
    """Prints the report; FAILED when a check failed, warnings are not failures."""
    findings = [check() for check in all_checks(settings)]
    if as_json:
        print_json({"ok": not any_failed(findings), "checks": [asdict(finding) for finding in findings]})
    else:
        _print_report(findings)
    return ExitCode.FAILED if any_failed(findings) else ExitCode.OK


def any_failed(findings: list[Finding]) -> bool:
    """Whether something must be mended before Eyepiece can run."""
    return any(finding.state == "fail" for finding in findings)


def _print_report(findings: list[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        line = Text.assemble((f"{finding.state:<5}", STYLES[finding.state]), f"{finding.name}: {finding.seen}")
        console.print(line)
        if finding.state != "ok" and finding.remedy:
            console.print(Text(f"     → {finding.remedy}"))
