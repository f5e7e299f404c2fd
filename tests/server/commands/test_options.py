"""Settings from the environment, from files beside it, and what is said when they cannot be had."""

from pathlib import Path

import pytest

from server.commands.options import settings_from
from server.commands.outcome import CommandError


@pytest.fixture
def secrets_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EYEPIECE_REDIS_URL", "EYEPIECE_LLM_URL", "EYEPIECE_LLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EYEPIECE_SECRETS_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["EYEPIECE_LLM_API_KEY", "eyepiece_llm_api_key"])
def test_a_secret_may_stand_in_a_file(secrets_dir: Path, name: str) -> None:
    (secrets_dir / name).write_text("of the file\n")

    settings = settings_from()

    assert settings.llm_api_key.get_secret_value() == "of the file"
    assert not settings.redis_is_external


def test_a_server_named_in_a_file_is_not_started_here(secrets_dir: Path) -> None:
    (secrets_dir / "EYEPIECE_REDIS_URL").write_text("redis://:password@cache:6379/0")
    (secrets_dir / "EYEPIECE_LLM_URL").write_text("http://vllm:8101")

    settings = settings_from()

    assert settings.redis_is_external
    assert settings.llm_is_external


def test_the_environment_and_the_command_line_win_over_files(
    secrets_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets_dir / "EYEPIECE_LLM_API_KEY").write_text("of the file")
    (secrets_dir / "EYEPIECE_MODEL").write_text("of-the-file")
    monkeypatch.setenv("EYEPIECE_LLM_API_KEY", "of the environment")

    settings = settings_from(model="of-the-command-line", port=None)

    assert settings.llm_api_key.get_secret_value() == "of the environment"
    assert settings.model == "of-the-command-line"


def test_models_on_the_command_line_win_over_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYEPIECE_MODELS", "c,d")

    served = [[it.name for it in settings_from(model=given).served_models] for given in (["a", "b"], ["a"], "a", None)]

    assert served == [["a", "b"], ["a"], ["a"], ["c", "d"]]


def test_a_folder_that_is_missing_is_refused(secrets_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYEPIECE_SECRETS_DIR", str(secrets_dir / "missing"))

    with pytest.raises(CommandError, match="EYEPIECE_SECRETS_DIR names no folder"):
        settings_from()


def test_a_file_that_is_no_text_is_refused(secrets_dir: Path) -> None:
    (secrets_dir / "EYEPIECE_LLM_API_KEY").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(CommandError, match="EYEPIECE_SECRETS_DIR cannot be read"):
        settings_from()


def test_a_wrong_value_is_not_repeated(secrets_dir: Path) -> None:
    (secrets_dir / "EYEPIECE_PORT").write_text("hunter2")

    with pytest.raises(CommandError, match="EYEPIECE_PORT is wrong") as caught:
        settings_from()
    assert "hunter2" not in str(caught.value)
