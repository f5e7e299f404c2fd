"""Nothing that can identify a patient leaves through a log line, whoever writes it."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog

from server.telemetry.logs import ALLOWED_FIELDS, configure_logs

PHI = "Doe^Jane"


@pytest.fixture
def lines() -> Iterator["Lines"]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    with redirect_stderr(io.StringIO()) as stream:
        configure_logs("debug")
        # A logger that is kept would write here for the rest of the run, whatever test uses it.
        structlog.configure(cache_logger_on_first_use=False)
        yield Lines(stream)
    root.handlers = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    structlog.reset_defaults()


class Lines:
    """What was logged since the last look."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def read(self) -> list[dict[str, Any]]:
        text = self._stream.getvalue()
        assert PHI not in text
        lines = [json.loads(line) for line in text.split("\n") if line]
        return [line for line in lines if line["event"] != "Using selector: %s"]


def test_an_event_keeps_the_fields_that_were_judged(lines: Lines) -> None:
    structlog.get_logger("server.encoding.jobs").info("request", status=200, route="/v1/slides/{slide_id}")

    (line,) = lines.read()
    assert (line["event"], line["status"], line["level"]) == ("request", 200, "info")
    assert line["logger"] == "server.encoding.jobs"
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("field", ["filename", "question", "answer", "path", "url", "detail", "exception", "key"])
def test_a_field_that_nobody_judged_is_dropped_and_counted(lines: Lines, field: str) -> None:
    structlog.get_logger("x").warning("something", **{field: PHI})

    (line,) = lines.read()
    assert line["dropped_fields"] == 1
    assert field not in ALLOWED_FIELDS


def test_an_exception_is_its_type_and_place(lines: Lines) -> None:
    try:
        open(f"/nowhere/{PHI}.svs").close()
    except FileNotFoundError as error:
        structlog.get_logger("x").error("failed", exc_info=error)
        structlog.get_logger("x").exception("failed")
        logging.getLogger("library").exception("failed")

    for line in lines.read():
        assert line["error"] == "FileNotFoundError"
        assert line["where"].startswith("test_logs:") or "test_logs" in line["where"]


def test_a_chain_of_exceptions_does_not_come_out(lines: Lines) -> None:
    try:
        try:
            raise ValueError(PHI)
        except ValueError as error:
            raise RuntimeError(PHI) from error
    except RuntimeError:
        logging.getLogger("library").exception("failed")

    (line,) = lines.read()
    assert line["error"] == "RuntimeError"


def test_what_a_library_fills_into_its_message_is_left_out(lines: Lines) -> None:
    library = logging.getLogger("library")
    library.warning("cannot read %s", PHI)
    library.warning("first line\n%s", PHI)
    library.warning("only this line\n" + PHI)
    library.warning("with a dictionary %(name)s", {"name": PHI})
    library.warning("with extras", extra={"path": PHI, "status": PHI})
    library.warning("with a stack", stack_info=True)

    events = [line["event"] for line in lines.read()]
    assert events[:4] == ["cannot read %s", "first line", "only this line", "with a dictionary %(name)s"]


def test_an_exception_logged_as_a_message_does_not_come_out(lines: Lines) -> None:
    logging.getLogger("library").error(ValueError(PHI))
    logging.getLogger("library").error({"patient": PHI})
    logging.getLogger("library").error("")

    assert [line["event"] for line in lines.read()] == ["ValueError", "dict", ""]


@pytest.mark.parametrize("name", ["saq", "uvicorn.access", "httpx", "httpcore"])
def test_chatty_libraries_are_quiet(lines: Lines, name: str) -> None:
    logging.getLogger(name).info("GET /v1/slides/%s", PHI)

    assert lines.read() == []


async def test_a_task_that_failed_unseen_says_only_that(lines: Lines) -> None:
    async def fail() -> None:
        raise ValueError(PHI)

    loop = asyncio.get_running_loop()
    task = loop.create_task(fail(), name=PHI)
    await asyncio.wait({task})
    loop.call_exception_handler({"message": "Task exception was never retrieved", "exception": task.exception()})

    (line,) = [line for line in lines.read() if line["logger"] == "asyncio"]
    assert (line["event"], line["error"]) == ("Task exception was never retrieved", "ValueError")


class Unprintable:
    """A value that cannot be written."""

    def __repr__(self) -> str:
        raise ValueError(PHI)


def test_a_line_that_cannot_be_written_is_not_printed_another_way(lines: Lines) -> None:
    structlog.get_logger("x").info("something", code=Unprintable(), filename=PHI)
    logging.getLogger("library").error("something", extra={"code": Unprintable(), "patient": PHI})

    assert [line["event"] for line in lines.read()] == ["something"]


def test_every_line_is_one_json_object(lines: Lines) -> None:
    structlog.get_logger("x").info("a\nb\u2028c", code="d\ne")

    (line,) = lines.read()
    assert line["event"] == "a\nb\u2028c"
