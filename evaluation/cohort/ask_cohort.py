"""One question about one slide, put to an Eyepiece."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import httpx

from evaluation.asking.http_call import Patience, call
from evaluation.cohort.read_tables import CohortQuestion


@dataclass(frozen=True)
class EncodedSlide:
    """A slide that the server has ready, by its id there, as the encoder `encoder_id` saw it."""

    name: str
    slide_id: str
    encoder_id: str


@dataclass(frozen=True)
class CohortAsk:
    """A question about a slide, for a model."""

    slide: EncodedSlide
    question: CohortQuestion
    model: str

    @property
    def key(self) -> str:
        """Of all that decides the answer, so that another model, encoder or wording is asked anew."""
        question = self.question
        parts = (self.model, self.slide.encoder_id, self.slide.slide_id, question.text, *question.choices)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class CohortEyepiece:
    """The server that is asked; each question is a conversation of its own."""

    base_url: str
    key: str
    patience: Patience = field(default_factory=Patience)

    async def put(self, client: httpx.AsyncClient, ask: CohortAsk) -> dict[str, Any]:
        """The answer with its doubts, as a line of the log.

        Raises:
            TargetError: the server refuses every question.
        """
        url = f"{self.base_url.rstrip('/')}/v1/slides/{ask.slide.slide_id}/questions"
        body: dict[str, Any] = {"question": ask.question.text, "stream": False, "model": ask.model}
        if ask.question.choices:
            body["choices"] = ask.question.choices
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        called = await call(client, url, body, self.patience, headers)
        told = called.document or {}
        usage = told.get("usage") or {}
        answer = told.get("answer")
        return {
            "key": ask.key,
            "text": answer if isinstance(answer, str) else None,
            "reason": called.reason or (None if isinstance(answer, str) else "no_answer"),
            "attempts": called.attempts,
            "choices": told.get("choices") or [],
            "warnings": [str(warning.get("code")) for warning in told.get("warnings") or ()],
            "conversation_id": told.get("conversation_id"),
            "turn": told.get("turn"),
            "prompt_tokens": int(usage.get("prompt_tokens") or 0),
            "answer_tokens": int(usage.get("completion_tokens") or 0),
        }
