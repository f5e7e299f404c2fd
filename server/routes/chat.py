"""/v1/chat/completions and /v1/models: the same questions for clients that speak OpenAI."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from model_store.errors import EyepieceError
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
from server.errors import openai_error
from server.flow import require_embedding
from server.parts import Parts, WithParts
from server.questions import Stopwatch, sampling
from server.request_log import CLIENT_CLOSED
from server.routes.keyed_route import KeyedRoute
from server.stream import openai_response, unless_disconnected

router = APIRouter(prefix="/v1", tags=["openai"], route_class=KeyedRoute)
CHAT_PATH = "/v1/chat/completions"


@router.get("/models")
async def list_models(_: Tenant, parts: WithParts) -> dict[str, Any]:
    """The one model that this server answers with."""
    manifest = parts.manifest
    model = {
        "id": manifest.name,
        "object": "model",
        "created": 0,
        "owned_by": "eyepiece",
        "title": manifest.title,
        "licence": manifest.licence,
        "notice": manifest.notice,
    }
    return {"object": "list", "data": [model]}


@router.post("/chat/completions")
async def complete_chat(chat: ChatRequest, request: Request, tenant: Tenant, parts: WithParts) -> Response:
    """OpenAI-compatible chat about one slide, streaming or not; nothing is remembered between requests."""
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
