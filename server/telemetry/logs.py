"""Structured logs: one JSON object a line, without PHI.

Only the fields named here pass. A field that somebody adds elsewhere is dropped until it is judged and added: file
names, questions, answers, keys and raw exception texts can all identify a patient.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

ALLOWED_FIELDS = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "logger",
        "slide",
        "encoder",
        "tenant",
        "code",
        "status",
        "route",
        "method",
        "request_id",
        "duration_ms",
        "attempt",
        "stage",
        "tiles",
        "count",
        "action",
        "error",
        "dependency",
        "model",
        "device",
        "host",
        "port",
        "version",
        "where",
        "priority",
        "reader",
        "reason",
        "key_digest",  # its beginning
        "layers",
        "upload",  # of an id of ours; of a series the beginning of its UID's hash
        "archive",  # the operator's name for it
        "webhook",  # the operator's name for an endpoint
    }
)


def only_allowed_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drop what is not known to be free of PHI, and say how much that was."""
    kept = {name: value for name, value in event.items() if name in ALLOWED_FIELDS}
    dropped = len(event) - len(kept)
    if dropped:
        kept["dropped_fields"] = dropped
    return kept


def exception_without_text(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace an exception by its type and where it was raised: its text may quote a path or a question."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["where"] = _innermost_frame(error)
    return event


def library_message_without_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep only the fixed text of a library's message: what it fills in may be a URL, a job or a question."""
    if not event.get("_from_structlog", True):
        record: logging.LogRecord = event["_record"]
        # A library may log an exception as its message: then its type is all that is fixed.
        event["event"] = record.msg.partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
    return event


def configure_logs(level: str) -> None:
    """Send our events and those of the libraries to standard error, all through the same filter."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,  # the request's id
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        exception_without_text,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                library_message_without_values,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                only_allowed_fields,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.raiseExceptions = False  # or a line that cannot be written is printed as it was, with all its values
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # SAQ logs job keys and tracebacks at INFO, uvicorn and httpx log URLs: our own events say what is needed.
    for name in ("saq", "uvicorn.access", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _innermost_frame(error: BaseException) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return "unknown"
    return f"{frame.tb_frame.f_globals.get('__name__', '?')}:{frame.tb_lineno}"
