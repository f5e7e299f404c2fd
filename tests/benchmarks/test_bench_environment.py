"""`make bench` has an environment of its own, in which other people's readers may be missing."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    return importlib.import_module("environments")


def test_a_reader_that_does_not_install_is_left_out_and_the_others_are_not(
    environments: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def install(environment: object, machine: object, requirements: tuple[str, ...]) -> None:
        asked.append(tuple(requirements))
        if any("cucim" in requirement for requirement in requirements):
            raise environments.SetupError("no such wheel")

    monkeypatch.setattr(environments, "uv_install", install)

    environments.install_bench(None, None)

    assert asked == [("--editable", ".[standalone]"), *environments.BENCH_PEERS.values()]
    assert capsys.readouterr().out.strip() == "cucim does not install here: it is left out of the comparison."


@pytest.mark.parametrize(("arguments", "built"), [([], ["server", "vllm"]), (["--only", "bench"], ["bench"])])
def test_it_is_built_only_when_it_is_asked_for(
    environments: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], built: list[str]
) -> None:
    wanted: list[str] = []
    monkeypatch.setattr(environments.Environment, "is_current", lambda self: False)
    monkeypatch.setattr(
        environments,
        "bring_up_to_date",
        lambda outdated, builds, *, locked=False: wanted.extend(it.name for it in outdated),
    )

    assert environments.main([*arguments, "--builds", "cpu"]) == 0

    assert wanted == built
