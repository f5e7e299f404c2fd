"""All benchmarks of reading slides and encoding tiles in turn, in short form: a few minutes on two cores.

    python -m benchmarks
    python -m benchmarks --long --slide CMU-1-Small-Region.svs --gigapath prov-gigapath

Each is a process of its own, prints its tables and writes its JSON under benchmarks/results/local.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.synthetic_slides import FOLDER
from benchmarks.write_results import LOCAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 when every benchmark ran to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    parser.add_argument("--long", action="store_true", help="more tiles and one more slide (450 MB)")
    parser.add_argument("--slide", type=Path, help="a real slide to read too")
    parser.add_argument("--gigapath", type=Path, help="a checkout of prov-gigapath/prov-gigapath")
    parser.add_argument("--trident", type=Path, help="a checkout of mahmoodlab/TRIDENT")
    options = parser.parse_args(arguments)
    LOCAL.mkdir(parents=True, exist_ok=True)
    failed = [name for name, told in commands(options).items() if not _ran(name, told)]
    for name in failed:
        print(f"{name} failed, see above.", file=sys.stderr)
    return 1 if failed else 0


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """The benchmarks by their module, and what each is told."""
    long = ["--long"] if options.long else []
    folder = ["--folder", str(options.folder)]
    return {
        "tissue": [],
        "reading": folder + long + _given(options, "slide"),
        "hand_off": folder + long,
        "view_tiles": folder + _given(options, "slide"),
        "worker": folder,
        "peer_pipelines": folder + long + _given(options, "gigapath") + _given(options, "trident"),
        "tile_encoder": ["--json", str(LOCAL / "tile_encoder.json")],
    }


def _given(options: argparse.Namespace, name: str) -> list[str]:
    value = getattr(options, name)
    return [] if value is None else [f"--{name}", str(value)]


def _ran(name: str, arguments: Sequence[str]) -> bool:
    print(f"\n# {name}\n", flush=True)
    # Beside what reads slides torch's idle threads would spin; the tile encoder is measured with all of them.
    threads = {} if name == "tile_encoder" else {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, check=False, env={**os.environ, **threads}).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
