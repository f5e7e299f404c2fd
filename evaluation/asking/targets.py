"""Who is asked: an Eyepiece, or any endpoint of the OpenAI dialect with no picture, a thumbnail or a mosaic."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol

import httpx

from evaluation.asking.conditions import AS_IS, CONDITIONS, NO_SLIDE, PARAPHRASED, Ask, Condition, Shown
from evaluation.asking.http_call import Patience, call

View = Literal["none", "thumbnail", "mosaic"]
# The longer side of the only picture that most published comparisons give to models that cannot read slides.
THUMBNAIL_PX: Final = 1024


@dataclass(frozen=True)
class Reply:
    """The text, or the reason why there is none. `finish` is the model's own word for why it stopped."""

    text: str | None
    reason: str | None
    attempts: int
    finish: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True)
class Generation:
    """How answers are generated; None leaves it to the server, and is recorded so."""

    temperature: float | None = 0.0
    max_tokens: int | None = 512
    seed: int | None = 0

    def as_body(self) -> dict[str, Any]:
        """Fields of a request, without those that are left to the server."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Target(Protocol):
    """Something that answers. `record` is all that decides its answers: a run goes on only where it is the same."""

    @property
    def record(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def conditions(self) -> Sequence[Condition]: ...  # noqa: D102

    async def ask(self, client: httpx.AsyncClient, ask: Ask) -> Reply: ...  # noqa: D102


async def reply_line(target: Target, client: httpx.AsyncClient, ask: Ask) -> dict[str, Any]:
    """Puts a question to the target; its reply as a line of the log."""
    return {
        "key": ask.key,
        "condition": ask.condition,
        "item": ask.item.key,
        "shown": ask.shown.slide if ask.shown.kind == "slide" else ask.shown.kind,
        **asdict(await target.ask(client, ask)),
    }


@dataclass(frozen=True)
class EyepieceTarget:
    """A model of an Eyepiece, which knows what is shown by ids: `slide_ids`. Each question is a conversation of its
    own.

    An Eyepiece is never asked without a slide; the blank one is in its place.
    """

    base_url: str
    key: str
    model: Mapping[str, Any]
    slide_ids: Mapping[Shown, str]
    generation: Generation = Generation(temperature=None, max_tokens=None, seed=None)
    patience: Patience = field(default_factory=Patience)

    @property
    def record(self) -> Mapping[str, Any]:
        """Kind, model with its weights and template, generation."""
        return {"kind": "eyepiece", "model": dict(self.model), "generation": asdict(self.generation)}

    @property
    def conditions(self) -> Sequence[Condition]:
        """All but "no slide"."""
        return [condition for condition in CONDITIONS if condition != NO_SLIDE]

    async def ask(self, client: httpx.AsyncClient, ask: Ask) -> Reply:
        """The whole answer at once."""
        body = {"question": ask.question, "stream": False, "model": self.model["id"], **self.generation.as_body()}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.base_url.rstrip('/')}/v1/slides/{self.slide_ids[ask.shown]}/questions"
        called = await call(client, url, body, self.patience, headers)
        if called.document is None:
            return Reply(None, called.reason, called.attempts)
        usage = called.document.get("usage") or {}
        return Reply(
            str(called.document.get("answer", "")),
            None,
            called.attempts,
            called.document.get("finish_reason"),
            int(usage.get("prompt_tokens", 0)),
            int(usage.get("completion_tokens", 0)),
        )


@dataclass(frozen=True)
class ChatEndpoint:
    """An address of the OpenAI dialect, up to and without `/chat/completions`, and the model there."""

    base_url: str
    model: str
    key: str = ""
    generation: Generation = Generation()
    patience: Patience = field(default_factory=Patience)

    async def complete(self, client: httpx.AsyncClient, messages: Sequence[Mapping[str, Any]]) -> Reply:
        """The text of the first choice; a refusal to speak is an empty text."""
        body = {"model": self.model, "messages": list(messages), **self.generation.as_body()}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        called = await call(client, url, body, self.patience, headers)
        if called.document is None:
            return Reply(None, called.reason, called.attempts)
        try:
            choice = called.document["choices"][0]
            text, usage = choice["message"].get("content"), called.document.get("usage") or {}
            tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            return Reply(None, "no_chat_reply", called.attempts)
        return Reply(text if isinstance(text, str) else "", None, called.attempts, choice.get("finish_reason"), *tokens)


@dataclass(frozen=True)
class PictureTarget:
    """A chat model that is shown JPEG pictures of the slide; `view` "none" is a model of text alone.

    `pictures_of` gives the pictures of a slide, or of a blank one of the same size.
    """

    endpoint: ChatEndpoint
    view: View
    pictures_of: Callable[[Shown], Sequence[bytes]]
    note: str = ""

    @property
    def record(self) -> Mapping[str, Any]:
        """Kind, model, view, generation, and what the user says of it."""
        return {
            "kind": "chat endpoint",
            "model": {"id": self.endpoint.model},
            "view": self.view,
            "thumbnail_px": THUMBNAIL_PX if self.view != "none" else None,
            "generation": asdict(self.endpoint.generation),
            "note": self.note,
        }

    @property
    def conditions(self) -> Sequence[Condition]:
        """A model of text alone is blind by itself: it is asked as is, and in other words."""
        return [AS_IS, PARAPHRASED] if self.view == "none" else CONDITIONS

    async def ask(self, client: httpx.AsyncClient, ask: Ask) -> Reply:
        """The pictures, then the question."""
        pictures = () if self.view == "none" or ask.shown.kind == "none" else self.pictures_of(ask.shown)
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}
            for jpeg in pictures
        ]
        text = {"type": "text", "text": ask.question}
        return await self.endpoint.complete(
            client, [{"role": "user", "content": [*content, text] if content else ask.question}]
        )
