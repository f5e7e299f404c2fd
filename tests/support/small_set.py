"""A small question set, and endpoints without a network that answer about it."""

import json
from collections.abc import Callable

import httpx

from evaluation.asking.conditions import Ask
from evaluation.asking.http_call import Patience
from evaluation.asking.targets import ChatEndpoint, Generation, PictureTarget
from evaluation.benchmark.items import Item, QuestionSet

IMPATIENT = Patience(timeout_s=0.2, attempts=2, first_wait_s=0.0)


def item(number: int, **changes: object) -> Item:
    """A closed question about slide `number`; two patients a project."""
    fields: dict[str, object] = {
        "key": f"q{number}",
        "task": "Grading",
        "group": "Diagnosis",
        "form": "letter",
        "slide": f"s{number}",
        "patient": f"p{number}",
        "project": f"P{number // 2}",
        "question": "Which grade? A) one B) two C) three",
        "truth": "ABC"[number % 3],
        "options": ("one", "two", "three"),
    }
    return Item(**(fields | changes))  # type: ignore[arg-type]


def questions(*items: Item) -> QuestionSet:
    return QuestionSet("small", "JSONL", items or tuple(item(number) for number in range(6)))


def open_item(number: int, truth: str, **changes: object) -> Item:
    return item(number, form="open", question="What is seen?", truth=truth, options=(), **changes)


def text_target(patience: Patience = IMPATIENT) -> PictureTarget:
    """A model that is shown the name of the slide as its picture."""
    endpoint = ChatEndpoint("http://model.test/v1", "m", generation=Generation(), patience=patience)
    return PictureTarget(endpoint, "thumbnail", lambda shown: (f"{shown.kind} {shown.slide}".encode(),))


def transport(answer: Callable[[dict[str, object]], object]) -> httpx.MockTransport:
    """Replies with a chat completion around what `answer` makes of the body, or with the Response that it gives."""

    def reply(request: httpx.Request) -> httpx.Response:
        made = answer(json.loads(request.content))
        if isinstance(made, httpx.Response):
            return made
        message = {"message": {"content": made}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        return httpx.Response(200, json={"choices": [message], "usage": usage})

    return httpx.MockTransport(reply)


def asks_by_key(asks: tuple[Ask, ...]) -> dict[str, Ask]:
    return {ask.key: ask for ask in asks}
