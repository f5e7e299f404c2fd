"""What the page promises about its files: others' code is what was recorded, and nothing is fetched from elsewhere."""

import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "web" / "page"
VENDOR = PAGE / "vendor"


def test_the_code_of_others_is_what_was_recorded_and_nothing_else() -> None:
    record = tomllib.loads((ROOT / "web" / "vendored.toml").read_text())
    wanted = {
        f"{name}/{Path(path).name}": digest for name, entry in record.items() for path, digest in entry["files"].items()
    }

    files = [path for path in VENDOR.rglob("*") if path.is_file()]
    found = {path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert found == wanted
    assert all(f"{name}/LICENSE.txt" in found for name in record)


def own_files(suffix: str) -> list[Path]:
    return [path for path in PAGE.rglob(f"*{suffix}") if VENDOR not in path.parents]


def test_no_file_of_ours_names_another_origin_or_sets_markup() -> None:
    forbidden = re.compile(
        r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
    )
    found = {
        path.name: match[0]
        for suffix in (".js", ".css", ".html", ".svg")
        for path in own_files(suffix)
        if (match := forbidden.search(path.read_text()))
    }

    assert found == {}


def test_every_style_and_script_of_the_page_is_there() -> None:
    named = re.findall(r'(?:href|src)="page/([^"]+)"', (PAGE / "index.html").read_text())

    assert len(named) > 5
    assert [name for name in named if not (PAGE / name).is_file()] == []


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to look at the modules' syntax")
def test_every_module_can_be_read() -> None:
    scripts = [path.read_text() for path in own_files(".js")]
    one_by_one = (
        "const {SourceTextModule} = require('vm'); for (const text of JSON.parse(require('fs').readFileSync(0)))"
    )
    read = subprocess.run(
        ["node", "--experimental-vm-modules", "--no-warnings", "-e", f"{one_by_one} new SourceTextModule(text);"],
        input=json.dumps(scripts),
        text=True,
        capture_output=True,
        check=False,
    )

    assert read.returncode == 0, read.stderr
