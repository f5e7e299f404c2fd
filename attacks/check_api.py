"""schemathesis against a server that is started for it: does it do what its OpenAPI document says, and no more?

    make check-api [MINUTES=5] [SEED=1]

Requests are made from the document, right and wrong ones, with all of schemathesis' checks; what they get wrong about
ids, which only a server knows, `schemathesis_hooks` puts right. The exit code is schemathesis' own: 0 without failures.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attacks.own_server import OwnServer, own_server
from attacks.sample_slides import features_file, pixel_slide, ready_slide
from attacks.target import Budget

ROOT = Path(__file__).resolve().parents[1]
_PROGRAM = ROOT / ".venv-api" / "bin" / "schemathesis"
_STOP_WITHIN_S = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: that of schemathesis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long requests are made (5)")
    parser.add_argument("--seed", type=int, help="of the requests; drawn otherwise, and printed")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="eyepiece-api-"))
    budget = Budget(ends_at=time.monotonic() + options.minutes * 60 + 600)
    with own_server(folder, budget, real_vllm=False, pauses=0.02, require_key=True) as server:
        server.make_keys()
        asyncio.run(_prepare(server, folder))
        code = _check(server, folder, options.minutes * 60, options.seed)
    if code:
        print(f"\nThe logs are in {folder}.")
    else:
        shutil.rmtree(folder)
    return code


async def _prepare(server: OwnServer, folder: Path) -> None:
    """A slide with pixels, one of features, a conversation, and features to upload: what requests may name."""
    features = features_file()
    (folder / "features.h5").write_bytes(features)
    of_pixels = await ready_slide(server, server.attacker, pixel_slide())
    of_features = await ready_slide(server, server.attacker, features)
    asked = await server.target.ask(of_pixels, server.attacker)
    lines = [of_pixels, of_features, asked.json["conversation_id"]]
    (folder / "ids").write_text("\n".join(lines))


def _check(server: OwnServer, folder: Path, seconds: float, seed: int | None) -> int:
    url = f"http://{server.target.host}:{server.target.port}/openapi.json?version=3.2"
    command = [
        str(_PROGRAM), "--config-file", str(ROOT / "attacks" / "schemathesis.toml"), "run", url,
        "--header", f"Authorization: Bearer {server.attacker}", "--max-time", str(max(1, round(seconds))),
        *([] if seed is None else ["--seed", str(seed)]),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "CHECK_API_FOLDER": str(folder),
        "PYTHONHASHSEED": "0",  # the hooks draw by hashes: the same seed, the same requests
        "PYTHONPATH": str(ROOT / "attacks"),
    }
    ran = subprocess.run(command, env=environment, cwd=folder, check=False, timeout=seconds + _STOP_WITHIN_S)
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
