"""The suite's own tests that need a GPU, of the packages that need no server: `pytest -m gpu`."""

import importlib.util
import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from benchmarks.gpu_check.results import CheckSkipped, Finding, Number
from benchmarks.gpu_check.setting import Setting

_ROOT: Final = Path(__file__).resolve().parents[2]
_FOLDERS: Final = ("encoders", "training")
_MARK: Final = "pytest.mark.gpu"
# What these tests import beside what all checks need.
_NEEDED: Final = ("pytest", "hypothesis", "PIL")


def check(setting: Setting) -> Finding:
    """On a CPU they are collected and say themselves that they need a GPU."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckSkipped(f"not installed: {', '.join(missing)}")
    files = marked_files()
    summary, shown = _run_pytest(files)
    print(shown)
    passed, failed, skipped = (_counted(summary, words) for words in ("passed", "failed|errors?", "skipped"))
    if not setting.on_gpu and skipped and not failed:
        raise CheckSkipped(f"they need a GPU: {skipped} tests of {len(files)} files")
    return Finding(
        numbers=(
            Number(name="tests passed", value=passed, at_least=1, source="tests marked gpu"),
            Number(name="tests failed", value=failed, at_most=0, source="; ".join(_failures(shown))),
            Number(name="tests skipped", value=skipped, at_most=0, source="on a GPU none has a reason"),
        )
    )


def marked_files() -> list[Path]:
    """Test files with tests for a GPU, which need no server's packages."""
    folders = [_ROOT / "tests" / folder for folder in _FOLDERS]
    return sorted(path for folder in folders for path in folder.rglob("test_*.py") if _MARK in path.read_text())


def _run_pytest(files: list[Path]) -> tuple[str, str]:
    """The last line, and all that was shown. In this process: it is this check's own."""
    import pytest

    # Where a plugin is missing its settings are unknown; where one is not, its modules may have been imported before.
    ignored = [f"ignore::pytest.{name}" for name in ("PytestConfigWarning", "PytestAssertRewriteWarning")]
    options = ["-q", "-rA", "-m", "gpu", "-p", "no:cacheprovider", *(word for each in ignored for word in ("-W", each))]
    shown = io.StringIO()
    with redirect_stdout(shown):
        status = pytest.main([*options, f"--rootdir={_ROOT}", *map(str, files)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(shown.getvalue())
        raise RuntimeError(f"pytest ended with status {int(status)}; the log says why")
    lines = [line for line in shown.getvalue().splitlines() if line.strip()]
    return (lines[-1].strip("= ") if lines else "nothing was shown"), shown.getvalue()


def _counted(summary: str, words: str) -> int:
    return sum(int(count) for count in re.findall(rf"(\d+) (?:{words})", summary))


def _failures(shown: str) -> list[str]:
    return re.findall(r"^(?:FAILED|ERROR) \S*/(\S+)", shown, re.MULTILINE)
