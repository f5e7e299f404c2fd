"""All load tests in turn, in short form, each against a server that it starts: some ten minutes on two cores.

    python -m loadtests
    python -m loadtests --long

Each is a process of its own, prints its tables and writes its JSON under loadtests/results/local.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 when every load test ran to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="more of everything: about an hour")
    options = parser.parse_args(arguments)
    failed = [name for name, extra in commands(options.long).items() if not _ran(name, extra)]
    for name in failed:
        print(f"{name} failed, see above.", file=sys.stderr)
    return 1 if failed else 0


def commands(long: bool) -> dict[str, list[str]]:
    """The load tests by their module, and what each is told."""
    flag = ["--long"] if long else []
    journey = ["--users", "8", "--seconds", "300"] if long else []
    return {
        "journey": journey,
        "api_alone": flag,
        "token_cost": ["--real", *flag],
        "footprint": ["--real"],
        "overhead": flag,
        "generate_worker": flag,
        "page_view": flag,
        "big_upload": flag,
        "large_archive": [] if long else ["--slides", "10000"],
    }


def _ran(name: str, extra: Sequence[str]) -> bool:
    print(f"\n# {name}\n", flush=True)
    return subprocess.run([sys.executable, "-m", f"loadtests.{name}", *extra], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
