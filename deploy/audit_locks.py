"""`make audit`: every package in deploy/locks against the OSV database, by pip-audit.

Exit code: 0 nothing is known against any of them, 1 something is, 2 it could not be found out. What was not asked is
never called clean.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from environments import LOCKS, ROOT
from lock_environments import entries
from pip_configuration import read_pip_configuration, uv_environment

AUDITOR = "pip-audit>=2.9,<3"
UV = ROOT / ".venv" / "bin" / "uv"
COULD_NOT = (
    "The audit could not be done, see the lines above: it needs the package index and https://api.osv.dev. "
    "Nothing is known about the packages; run it where both can be reached."
)


@dataclass(frozen=True)
class Report:
    """What was asked about one lock, and what is known, a line each; None where the auditor gave no answer."""

    asked: int
    known: tuple[str, ...]


def audit_command(lock: Path) -> list[str | Path]:
    """Asks about the versions in the lock as they are written; nothing is installed or resolved."""
    wanted = ["--disable-pip", "--require-hashes", "--vulnerability-service", "osv", "--format", "json"]
    return [UV, "tool", "run", "--quiet", "--from", AUDITOR, "pip-audit", *wanted, "--requirement", lock]


def read_report(output: str) -> Report | None:
    """The auditor's JSON; None when it is none, or a package was skipped."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    if any("skip_reason" in package for package in packages):
        return None
    known = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package["vulns"]
    ]
    return Report(len(packages), tuple(known))


def main(locks: Sequence[Path]) -> int:
    """Audits all locks; the exit code is said at the top of this file."""
    variables = uv_environment(read_pip_configuration(Path(sys.executable)))
    known: set[str] = set()
    for lock in locks:
        # Its own exit code does not tell findings from a service that is away.
        ran = subprocess.run(
            [str(part) for part in audit_command(lock)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, **variables},
        )
        report = read_report(ran.stdout)
        if report is None or not report.asked:
            sys.stderr.write(f"{lock.name}: {COULD_NOT}\n")
            return 2
        known.update(report.known)
        print(f"{lock.name}: {report.asked} of {len(entries(lock.read_text()))} packages are for this platform: asked")
    for line in sorted(known):
        print(line)
    print(f"{len(known)} known vulnerabilities" if known else "No known vulnerabilities")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main(sorted(LOCKS.glob("*.txt"))))
