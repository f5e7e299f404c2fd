"""/v1/chat/completions and /v1/models: the same questions for clients that speak OpenAI."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from model_store.errors import EyepieceError
from model_store.manifest import Manifest
from server.access import Tenant
from server.ask import Answer
from server.chat import (
    ChatRequest,
    Completion,
    chat_chunks,
    chat_completion,
    chat_messages,
    refuse_unsupported,
    slide_id_of,
)
from server.errors import NotFound, openai_error
from server.flow import require_embedding
from server.parts import Parts, WithParts
from server.questions import Stopwatch, sampling
from server.request_log import CLIENT_CLOSED
from server.routes.keyed_route import KeyedRoute
from server.stream import openai_response, unless_disconnected

router = APIRouter(prefix="/v1", tags=["openai"], route_class=KeyedRoute)
CHAT_PATH = "/v1/chat/completions"
_MODELS_PATH = "/v1/models"


def speaks_openai(path: str) -> bool:
    """Whether clients of OpenAI's API ask there, who understand its envelope of errors only."""
    return path in (CHAT_PATH, _MODELS_PATH) or path.startswith(f"{_MODELS_PATH}/")


@router.get("/models")
async def list_models(_: Tenant, parts: WithParts) -> dict[str, Any]:
    """The one model that this server answers with."""
    return {"object": "list", "data": [_model(parts.manifest)]}


@router.get("/models/{model:path}")
async def get_model(model: str, _: Tenant, parts: WithParts) -> dict[str, Any]:
    """The model of this name, when it is the one that this server answers with."""
    if model != parts.manifest.name:
        raise NotFound(f"This server answers with the model {parts.manifest.name} alone; see GET /v1/models.")
    return _model(parts.manifest)


def _model(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.name,
        "object": "model",
        "created": 0,
        "owned_by": "eyepiece",
        "title": manifest.title,
        "licence": manifest.licence,
        "notice": manifest.notice,
    }


@router.post("/chat/completions")
async def complete_chat(chat: ChatRequest, request: Request, tenant: Tenant, parts: WithParts) -> Response:
    """OpenAI-compatible chat about one slide, streaming or not; nothing is remembered between requests.

    The slide is a content part `{"type": "slide", "slide": {"id": "…"}}` of a user's message, or, for clients that only
    know images, an `image_url` of `slide:<id>` or `https://slides.invalid/<id>`, which is never fetched. Options that
    are not implemented are taken at the value that changes nothing, and refused by name at any other."""
    refuse_unsupported(chat, parts.manifest.name)
    completion = Completion(parts.manifest.name, parts.manifest.notice)
    watch = Stopwatch()
    async with AsyncExitStack() as resources:
        resources.enter_context(parts.question_slots.one(tenant))
        answer = await unless_disconnected(request, _open(chat, tenant, watch, parts), parts.drain.cut)
        if answer is None:
            return Response(status_code=CLIENT_CLOSED)
        resources.push_async_callback(answer.close)
        if chat.stream:
            chunks = chat_chunks(answer, completion, chat.wants_usage, watch, parts.metrics)
            return openai_response(_errors_as_chunks(chunks), parts.drain.cut, resources.pop_all())
        work = chat_completion(answer, completion, watch, parts.metrics)
        whole = await unless_disconnected(request, work, parts.drain.cut)
    return Response(status_code=CLIENT_CLOSED) if whole is None else JSONResponse(whole)


async def _open(chat: ChatRequest, tenant: str, watch: Stopwatch, parts: Parts) -> Answer:
    record = await parts.slides.require(tenant, slide_id_of(chat))
    slide = await require_embedding(record, parts)
    watch.cache_ms = watch.elapsed_ms()
    messages = chat_messages(chat, slide, parts.settings.max_question_chars)
    return await parts.language_model.open(tenant, messages, sampling(chat.wishes(), parts.manifest))


async def _errors_as_chunks(chunks: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[dict[str, Any], None]:
    """The OpenAI client raises on a chunk that holds `error`."""
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        except EyepieceError as error:
            yield openai_error(error)
