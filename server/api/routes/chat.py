"""/v1/chat/completions and /v1/models: the same questions for clients that speak OpenAI."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from model_store.errors import EyepieceError
from server.api.access import Tenant
from server.api.audited import note_question, note_slide
from server.api.chat import (
    ChatCompletionRequest,
    Completion,
    chat_chunks,
    chat_completion,
    chat_messages,
    refuse_unsupported,
    slide_of,
)
from server.api.contract.chat_answers import ChatCompletion, Model, ModelList, ModelTopic
from server.api.contract.errors import OF_EVERY_QUESTION, may_raise
from server.api.contract.events import stream_of
from server.api.contract.parameters import ModelName
from server.api.dependencies import AnsweringDep, ModelsDep, ReadinessDep
from server.api.region_shapes import asked_region
from server.api.request_log import CLIENT_CLOSED
from server.api.routes.keyed_route import KeyedRoute, needs
from server.api.slide_names import slide_id_of
from server.api.stream import openai_response, unless_disconnected
from server.asking.answer_warnings import conversation_warnings
from server.asking.language_model import Message
from server.asking.questions import Stopwatch
from server.asking.scope import scope_of, scope_warnings
from server.asking.served_models import ServedModel
from server.embeddings.slide_inputs import SlideInput
from server.errors import NotFound, openai_error
from server.flow.answer_question import AnswerQuestion, OpenChat
from server.upkeep.readiness import ModelState

router = APIRouter(prefix="/v1", tags=["openai"], route_class=KeyedRoute)
CHAT_PATH = "/v1/chat/completions"
_MODELS_PATH = "/v1/models"


def speaks_openai(path: str) -> bool:
    """Whether clients of OpenAI's API ask there, who understand its envelope of errors only."""
    return path in (CHAT_PATH, _MODELS_PATH) or path.startswith(f"{_MODELS_PATH}/")


@router.get("/models", dependencies=needs(None))
async def list_models(_: Tenant, models: ModelsDep, readiness: ReadinessDep) -> ModelList:
    """The models that this server answers with, the default first, and whether each answers now."""
    return ModelList(object="list", data=[_model(model, readiness.models[model.name]) for model in models])


@router.get("/models/{model:path}", dependencies=needs(None), responses=may_raise(NotFound))
async def get_model(model: ModelName, _: Tenant, models: ModelsDep, readiness: ReadinessDep) -> Model:
    """The model of this name, when this server answers with it."""
    found = models.find(model)
    if found is None:
        raise NotFound(f"This server does not serve that model; it serves {', '.join(models.names)}.")
    return _model(found, readiness.models[found.name])


def _model(model: ServedModel, state: ModelState) -> Model:
    manifest = model.manifest
    return Model(
        id=manifest.name,
        object="model",
        created=0,
        owned_by="eyepiece",
        title=manifest.title,
        quantization=manifest.llm.quantization,
        licence=manifest.licence,
        notice=manifest.notice,
        kind=manifest.reads,
        topics=[ModelTopic(name=name, example=example) for name, example in manifest.abilities.topics.items()],
        trained_turns=manifest.abilities.trained_turns,
        state=state,
    )


@router.post(
    "/chat/completions",
    dependencies=needs("ask", "questions"),
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "One object, or chunks with `stream: true`.",
            "content": stream_of("ChatCompletionEvent"),
        },
        **may_raise(*OF_EVERY_QUESTION),
    },
)
async def create_chat_completion(
    chat: ChatCompletionRequest,
    request: Request,
    tenant: Tenant,
    answering: AnsweringDep,
) -> Response:
    """OpenAI-compatible chat about one slide, streaming or not; nothing is remembered between requests.

    The slide is a content part `{"type": "slide", "slide": {"id": "…"}}` of a user's message, or, for clients that only
    know images, an `image_url` of `slide:<id>` or `https://slides.invalid/<id>`, which is never fetched. A `region` of
    the slide is named beside its `id`, in an address behind `#`. Options that are not implemented are taken at the
    value that changes nothing, and refused by name at any other."""
    story, cut = answering.story, answering.drain.cut
    model = story.models.named(chat.model)
    refuse_unsupported(chat)
    slide_id = await slide_id_of(request, slide_of(chat)[0])
    note_slide(request, slide_id)
    note_question(request, chat.last_question)
    turns = sum(message.role == "user" for message in chat.messages)
    watch = Stopwatch()
    async with AsyncExitStack() as resources:
        resources.enter_context(answering.slots.one(tenant))
        opened = await unless_disconnected(request, _open(chat, tenant, slide_id, model, watch, story), cut)
        if opened is None:
            return Response(status_code=CLIENT_CLOSED)
        answer, doubts = opened.answer, scope_warnings(opened.record, opened.region)
        completion = Completion(
            model.name,
            model.manifest.notice,
            scope_of(opened.region),
            (*doubts, *conversation_warnings(model.manifest, turns)),
        )
        resources.push_async_callback(answer.close)
        if chat.stream:
            chunks = chat_chunks(answer, completion, chat.wants_usage, watch, story.metrics)
            return openai_response(_errors_as_chunks(chunks), cut, resources.pop_all())
        work = chat_completion(answer, completion, watch, story.metrics)
        whole = await unless_disconnected(request, work, cut)
    return Response(status_code=CLIENT_CLOSED) if whole is None else JSONResponse(whole)


async def _open(
    chat: ChatCompletionRequest,
    tenant: str,
    slide_id: str,
    model: ServedModel,
    watch: Stopwatch,
    story: AnswerQuestion,
) -> OpenChat:
    def messages(slide: SlideInput) -> list[Message]:
        return chat_messages(chat, slide, story.max_question_chars, model.control_text)

    about = slide_id, await asked_region(slide_of(chat)[1])
    return await story.open_chat(tenant, model, about, messages, chat.sampling_options(), watch)


async def _errors_as_chunks(chunks: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[dict[str, Any], None]:
    """The OpenAI client raises on a chunk that holds `error`."""
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        except EyepieceError as error:
            yield openai_error(error)
