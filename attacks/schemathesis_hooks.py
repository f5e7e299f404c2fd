"""What schemathesis cannot make up: ids of slides and conversations that are there, files that are features, chats that
take turns. Half of its good requests get them; the others, and all bad ones, stay as they are. All good ones name the
model that is served: the document can only say that GET /v1/models has the names."""

import os
import secrets
from pathlib import Path
from typing import Any

import schemathesis

_FOLDER = Path(os.environ["CHECK_API_FOLDER"])
_OF_PIXELS, _OF_FEATURES, _CONVERSATION = (_FOLDER / "ids").read_text().split()
_FEATURES = (_FOLDER / "features.h5").read_bytes()


@schemathesis.hook  # type: ignore[untyped-decorator]  # not installed beside mypy
def filter_case(context: Any, case: Any) -> bool:
    """Without a header that nobody knows: to refuse one is what HTTP forbids (RFC 9110, section 5.1)."""
    return not any(name.lower().startswith("x-schemathesis-unknown") for name in case.headers or {})


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_case(context: Any, case: Any) -> Any:
    """The request, with an id that is known in place of one that was made up; what is known is not deleted."""
    if case.method == "DELETE":
        for name, value in case.path_parameters.items():
            if value in (_OF_PIXELS, _OF_FEATURES, _CONVERSATION):
                case.path_parameters[name] = value[:5] + value[5:][::-1]
        return case
    draw = hash(repr((case.path_parameters, case.query, str(case.body)[:200]))) % 8
    is_good = case.meta is not None and case.meta.generation.mode.is_positive
    if is_good:
        _name_the_model(case)
    # Stateful tests have ids of their own, from answers.
    if not is_good or draw % 2 or case.meta.phase.name == "stateful":
        return case
    known = {
        "slide_id": _OF_PIXELS if draw % 4 else _OF_FEATURES,
        "conversation_id": _CONVERSATION,
        "turn": 1,
        "model": "demo",
    }
    case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
    if isinstance(case.query, dict) and "slide" in case.query:
        case.query["slide"] = _OF_PIXELS
    _put_into_body(case.operation.definition.raw.get("operationId"), case.body)
    return case


@schemathesis.serializer("application/offset+octet-stream", "multipart/related")  # type: ignore[untyped-decorator]
def as_it_is(context: Any, value: Any) -> bytes:
    """Bytes of a piece of an upload, or of a body of instances, whatever they are."""
    return value if isinstance(value, bytes) else str(value).encode()


def _name_the_model(case: Any) -> None:
    for place in (case.query, case.body):
        if isinstance(place, dict) and isinstance(place.get("model"), str):
            place["model"] = "demo"


def _put_into_body(operation: str, body: Any) -> None:
    if not isinstance(body, dict):
        return
    if operation == "uploadSlide":
        body["file"] = [_FEATURES + secrets.token_bytes(8)]  # what is behind the end of HDF5 makes another slide
    elif operation == "attachFeatures":
        body["file"] = _FEATURES
    elif operation == "askQuestion" and body.get("conversation_id") is not None:
        body["conversation_id"] = _CONVERSATION
    elif operation == "encodeSlide" and body.get("encoder") is not None:
        body["encoder"] = "demo"
    elif operation == "createChatCompletion":
        part = {"type": "slide", "slide": {"id": _OF_PIXELS}}
        body["model"] = "demo"
        body["messages"] = [{"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}]
