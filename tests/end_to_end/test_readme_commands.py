"""Each command of README, docs/api.md and docs/integration.md, run as it stands against a running server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running_server import RunningServer

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).resolve().parents[2]
# `make …` is what CI and tests/end_to_end/test_demo.py run.
BLOCKS = [
    (language, text)
    for page in ("README.md", "docs/api.md", "docs/integration.md")
    for language, text in re.findall(r"```(sh|python)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    if not text.startswith("make ")
]


def test_the_commands_of_readme_and_api_page_work_in_their_order(server: RunningServer, tmp_path: Path) -> None:
    shell = ["set -e", f"export EYEPIECE_URL={server.url} EYEPIECE_DATA_DIR={server.data_dir}"]
    python = []
    for language, text in BLOCKS:
        ours = text.replace("http://127.0.0.1:8000", server.url).replace("/tmp/", f"{tmp_path}/")
        (shell if language == "sh" else python).append(ours)

    assert len(BLOCKS) >= 7
    ran = subprocess.run(
        ["bash", "-c", "\n".join(shell)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "event: done" in ran.stdout
    assert "eyp_" in ran.stdout
    for program in python:
        answered = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ}, timeout=120
        )
        assert answered.returncode == 0, answered.stderr
        assert answered.stdout.strip()
