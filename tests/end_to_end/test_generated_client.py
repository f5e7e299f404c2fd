"""docs/clients.md, as it stands: the document is fetched, a client is made from it, and it uploads and asks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running_server import RunningServer

pytestmark = pytest.mark.vllm
PAGE = Path(__file__).resolve().parents[2] / "docs" / "clients.md"


def test_a_client_made_from_the_document_uploads_and_asks(
    server: RunningServer, slide: dict[str, Any], sample_path: Path, tmp_path: Path
) -> None:
    shutil.copy(sample_path, tmp_path / "eyepiece-example.svs")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    commands: dict[str, list[str]] = {"sh": ["bash", "-ec"], "python": [sys.executable, "-c"]}

    printed = []
    for language, text in re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        ours = text.replace("http://127.0.0.1:8000", server.url).replace("/tmp/", f"{tmp_path}/")
        ran = subprocess.run(
            [*commands[language], ours], capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=120
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "WARNING" not in ran.stdout, "the generator leaves something out"
        printed.append(ran.stdout)

    assert slide["id"] in printed[-1]
    assert "not_found There is no slide" in printed[-1]
