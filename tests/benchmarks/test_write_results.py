import getpass
import json
import platform
from pathlib import Path

import pytest

from benchmarks.write_results import table, write_result


def test_a_result_names_processor_and_versions_but_neither_host_nor_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.write_results.LOCAL", tmp_path / "local")

    path = write_result("reading", {"cases": [1]}, ["numpy", "no-such-package"])

    text = path.read_text()
    content = json.loads(text)
    assert content["benchmark"] == "reading"
    assert content["cases"] == [1]
    assert set(content["machine"]) == {"cpu", "cores", "system"}
    assert set(content["versions"]) == {"python", "numpy"}
    assert platform.node() not in text
    assert f"/{getpass.getuser()}" not in text


def test_a_table_is_markdown() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
