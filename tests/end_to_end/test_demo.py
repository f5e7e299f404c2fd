"""`make demo ONCE=1`, the first thing a newcomer types; here with a second model, of levels, about the same slide."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from server.machine.redis_server import free_loopback_port

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).resolve().parents[2]


def test_make_demo_once_ends_with_answers_beside_the_truth(tmp_path: Path) -> None:
    port = free_loopback_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    ran = subprocess.run(
        ["make", "demo", "ONCE=1", f"PORT={port}", f"DATA_DIR={tmp_path / 'data'}"],
        cwd=ROOT,
        env={**environment, "EYEPIECE_MODELS": "demo,demo-hierarchical"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "not a diagnosis" in ran.stdout
    assert len(re.findall(r"^.+  \| truth: .+ [✓✗]$", ran.stdout, re.MULTILINE)) == 4
    assert ran.stdout.count("\n> (follow-up) ") == 2
    # Drawn weights answer without sense, and not as the trained model does.
    trained, *_, untrained = re.findall(r"^(.+)  \| truth: ", ran.stdout, re.MULTILINE)
    assert "\n> (demo-hierarchical) What is the growth pattern?" in ran.stdout
    assert trained != untrained
    assert "this model was never trained" in ran.stdout
    # A follow-up finds the slide's tokens in vLLM's prefix cache.
    cached = [int(count) for count in re.findall(r"(\d+) of \d+ prompt tokens cached", ran.stdout)]
    assert min(cached[1:3]) > 0
    assert re.search(r"slide  [0-9a-f]{64}", ran.stdout)
    assert f"curl -N http://127.0.0.1:{port}/v1/slides/" in ran.stdout
