"""SHA256SUMS is what `sha256sum -c` reads."""

import shutil
import subprocess
from pathlib import Path

import pytest

from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, listed_files, read_sums, write_sums


def test_a_written_file_reads_back_as_the_digest_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part/b.bin").write_bytes(b"b")
    (tmp_path / "a b.txt").write_bytes(b"a")

    write_sums(tmp_path)

    assert list(read_sums(tmp_path)) == listed_files(tmp_path) == ["a b.txt", "part/b.bin"]
    assert read_sums(tmp_path)["part/b.bin"] == file_digest(tmp_path / "part/b.bin")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_sha256sum_accepts_the_file_and_sees_a_change(models_dir: Path) -> None:
    check = ["sha256sum", "-c", "--strict", "SHA256SUMS"]
    intact = subprocess.run(check, cwd=models_dir / "demo", capture_output=True, text=True)
    (models_dir / "demo/manifest.toml").write_text("changed")
    changed = subprocess.run(check, cwd=models_dir / "demo", capture_output=True, text=True)

    assert intact.returncode == 0, intact.stderr
    assert changed.returncode == 1
    assert "manifest.toml: FAILED" in changed.stdout


@pytest.mark.parametrize(
    "line",
    [
        "",
        "abc  llm/config.json",
        f"{'A' * 64}  llm/config.json",
        f"{'a' * 64} llm/config.json",
        f"{'a' * 64}  /etc/passwd",
        f"{'a' * 64}  ../other/model.safetensors",
        f"{'a' * 64}  ",
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'a' * 64}  good\n{line}\n")

    with pytest.raises(ModelError, match="Line 2 "):
        read_sums(tmp_path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no readable SHA256SUMS"):
        read_sums(tmp_path)
