"""The journey of locustfile.py against a server that is started here, with the demo model.

pip install --group load
python -m loadtests.journey
python -m loadtests.journey --users 8 --seconds 300
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.write_results import table
from loadtests.own_server import own_server
from loadtests.results_file import write_result
from synthetic.write_slide import write_synthetic_slide

LOCUST = Path(__file__).parent.parent / ".venv-load/bin/locust"
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
LAST_STEP = "delete"


@dataclass(frozen=True)
class Step:
    """One step of the journey, in milliseconds."""

    name: str
    count: int
    failures: int
    median_ms: float
    p95_ms: float
    most_ms: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 when any step of any journey failed, or none came to its end."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, own_server(Path(folder, "data"), "demo") as server:
        slide = Path(folder, "load.svs")
        write_synthetic_slide(slide, seed=1, width_px=2048, height_px=1536)
        steps = _steps(_run_locust(server.api_url, slide, options))
    header = ("step", "count", "failed", "median ms", "p95 ms", "most ms")
    print(table(header, [_row(step) for step in steps]))
    content = {"users": options.users, "seconds": options.seconds, "steps": [asdict(step) for step in steps]}
    print(f"\n{write_result('journey', content)}")
    ended = any(step.name == LAST_STEP and step.count for step in steps)
    return 1 if any(step.failures for step in steps) or not ended else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=3, help="at once (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--locust", type=Path, default=LOCUST, help="default: %(default)s")
    return parser


def _run_locust(url: str, slide: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    command = [str(options.locust), "-f", str(LOCUSTFILE), "--host", url, "--headless", "--json"]
    command += ["--users", str(options.users), "--spawn-rate", str(options.users)]
    # Journeys that have begun may end.
    command += ["--run-time", f"{options.seconds}s", "--stop-timeout", "60", "--loglevel", "WARNING"]
    # requests would send what is for this machine through a proxy of the environment.
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "EYEPIECE_LOAD_SLIDE": str(slide)}
    # Locust ends with 1 when a request failed; the table says which.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _steps(found: Sequence[Mapping[str, Any]]) -> list[Step]:
    return sorted((_step(entry) for entry in found), key=lambda step: step.name)


def _step(entry: Mapping[str, Any]) -> Step:
    times = sorted((float(ms), int(count)) for ms, count in entry["response_times"].items())
    return Step(
        entry["name"],
        entry["num_requests"],
        entry["num_failures"],
        _at(times, 0.5),
        _at(times, 0.95),
        round(float(entry["max_response_time"]), 1),
    )


def _at(times: Sequence[tuple[float, int]], share: float) -> float:
    """The time, of (milliseconds, how often) in rising order, that `share` of them do not exceed."""
    wanted, so_far = share * sum(count for _, count in times), 0
    for ms, count in times:
        so_far += count
        if so_far >= wanted:
            return ms
    return 0.0


def _row(step: Step) -> tuple[str, ...]:
    times = (f"{it:.0f}" for it in (step.median_ms, step.p95_ms, step.most_ms))
    return (step.name, str(step.count), str(step.failures), *times)


if __name__ == "__main__":
    sys.exit(main())
