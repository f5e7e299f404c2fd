"""The request to vLLM, and every way its reply can go wrong."""

import asyncio
import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from fakes import SLIDE_ROWS, SLIDE_WIDTH, FakeVllm, sample_embedding, slide_parts, sse, token_chunk, usage

from encoders.embedding_file import to_bytes
from server.asking.language_model import (
    Finished,
    LanguageModel,
    Message,
    Sampling,
    Token,
)
from server.asking.vllm_client import VllmClient
from server.embeddings.cache import CachedEmbedding
from server.embeddings.slide_inputs import SlideInput, SlideInputs
from server.errors import (
    DependencyError,
    LanguageModelFailed,
    LanguageModelUnavailable,
    QuestionTooLong,
    SlideLost,
)
from server.machine.redis_server import free_loopback_port

SLIDE, ENCODER = "ab" * 32, "e" * 16
INPUTS = SlideInputs("digest", "secret")
SAMPLING = Sampling(max_tokens=9, temperature=0.0)


def cached(slide: str = SLIDE, encoder: str = ENCODER, value: float = 0.5) -> CachedEmbedding:
    embedding = sample_embedding(slide, encoder, value=value)
    return CachedEmbedding(embedding, to_bytes(embedding))


def slide_input(inputs: SlideInputs = INPUTS, tenant: str = "a") -> SlideInput:
    return inputs.make(tenant, cached())


async def ask(vllm: FakeVllm, *messages: Message, sampling: Sampling = SAMPLING) -> list[Token | Finished]:
    """All pieces of the answer; the connection is closed whatever happens."""
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=())
    try:
        answer = await model.open("a", list(messages) or [Message("user", "Why?", slide_input())], sampling)
        try:
            return [piece async for piece in answer.pieces()]
        finally:
            await answer.close()
    finally:
        await model.aclose()


async def test_an_answer_is_its_tokens_and_what_it_cost() -> None:
    pieces = await ask(FakeVllm("No ", "tumour."))

    assert pieces[:-1] == [Token("No "), Token("tumour.")]
    end = pieces[-1]
    assert isinstance(end, Finished)
    assert (end.usage.prompt_tokens, end.usage.slide_tokens, end.usage.cached_tokens) == (50, SLIDE_ROWS, 16)


async def test_an_answer_does_not_begin_with_the_blank_of_its_first_word() -> None:
    assert (await ask(FakeVllm(" ", " B", " or", " not")))[:-1] == [Token("B"), Token(" or"), Token(" not")]


async def test_the_request_has_the_shape_that_the_plugin_reads() -> None:
    vllm = FakeVllm()

    await ask(vllm, Message("user", "Why?", slide_input()), Message("assistant", "So."), Message("user", "And?"))

    body = vllm.bodies[0]
    first, second, third = body["messages"]
    slide, text = first["content"]
    assert (first["role"], second, third) == (
        "user",
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And?"},
    )
    assert text == {"type": "text", "text": "Why?"}
    assert set(slide) == {"type", "image_embeds", "uuid"}
    rows = np.load(io.BytesIO(base64.b64decode(slide["image_embeds"])), allow_pickle=False)
    assert (rows.shape, rows.dtype) == ((SLIDE_ROWS, SLIDE_WIDTH), np.float16)
    assert (body["model"], body["stream"], body["max_tokens"], body["temperature"]) == ("demo", True, 9, 0.0)
    assert body["stream_options"] == {"include_usage": True}
    assert not {"seed", "stop", "vllm_xargs"} & set(body)


async def test_all_that_a_generation_config_could_change_is_said() -> None:
    """vLLM takes what a request leaves out from the checkpoint: Qwen's says top_k 20 and a penalty of 1.05."""
    vllm = FakeVllm()
    await ask(vllm)

    said = {name: vllm.bodies[0].get(name) for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")}

    assert said == {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


async def test_wishes_reach_vllm() -> None:
    vllm = FakeVllm()

    own = {"no_repeat_ngram_size": 3, "generated_repetition_penalty": 1.15}
    await ask(vllm, sampling=Sampling(1, 1.5, top_p=0.5, top_k=20, seed=-3, stop=("x", "y"), **own))

    body = vllm.bodies[0]
    assert (body["top_p"], body["top_k"], body["seed"], body["stop"]) == (0.5, 20, -3, ["x", "y"])
    assert body["vllm_xargs"] == own


@pytest.mark.parametrize(
    "other",
    [
        INPUTS.make("b", cached()),
        INPUTS.make("a", cached(encoder="f" * 16)),
        INPUTS.make("a", cached(value=0.25)),
        INPUTS.make("a", cached(slide="cd" * 32)),
        SlideInputs("another digest", "secret").make("a", cached()),
    ],
    ids=["tenant", "encoder", "content", "slide", "language model"],
)
def test_the_uuid_differs_with_all_that_the_rows_depend_on(other: SlideInput) -> None:
    assert other.uuid != slide_input().uuid


def test_the_uuid_of_the_same_rows_is_the_same_in_every_replica() -> None:
    stored = cached()

    assert SlideInputs("digest", "another secret").make("a", stored).uuid == INPUTS.make("a", stored).uuid


async def test_replicas_are_chosen_by_a_name_that_hides_the_slide() -> None:
    vllm = FakeVllm()
    await ask(vllm)

    name = vllm.requests[0].headers["X-Slide-Id"]

    assert name == slide_input().route_key
    assert SLIDE[:8] not in name
    assert name != slide_input(tenant="b").route_key
    assert name != slide_input(SlideInputs("digest", "another secret")).route_key


async def test_two_tenants_never_share_a_prefix() -> None:
    vllm = FakeVllm()
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=())

    for tenant in ("a", "b", "a"):
        await (await model.open(tenant, [Message("user", "Why?", slide_input())], SAMPLING)).close()

    salts = [body["cache_salt"] for body in vllm.bodies]
    assert salts[0] == salts[2] != salts[1]
    assert salts[0] != "a"
    await model.aclose()


@pytest.mark.parametrize(
    "pieces",
    [
        sse(token_chunk("x", slide_tokens=SLIDE_ROWS - 1)),
        sse(token_chunk("x", slide_tokens=0)),
        sse(token_chunk("x", slide_tokens=2 * SLIDE_ROWS)),
        sse(token_chunk("x")),
        sse(token_chunk("x") | {"usage": {"prompt_tokens": 5}}),
        sse(token_chunk("x") | {"usage": {"prompt_tokens": 5, "prompt_tokens_details": None}}),
        sse(token_chunk("x") | {"usage": {"prompt_tokens": 5, "prompt_tokens_details": {}}}),
        sse(token_chunk("x", slide_tokens=SLIDE_ROWS), {"choices": [], "usage": usage(0)}),
    ],
    ids=["one less", "none", "twice", "no usage", "no details", "null details", "empty details", "at the end"],
)
async def test_an_answer_that_did_not_see_the_slide_is_withheld(pieces: list[bytes]) -> None:
    vllm = FakeVllm()
    vllm.answer_with(*pieces)

    with pytest.raises(SlideLost):
        await ask(vllm)
    assert vllm.streams[0].closed.is_set()


async def test_no_token_is_passed_on_before_the_slide_was_seen() -> None:
    vllm = FakeVllm()
    vllm.answer_with(*sse(token_chunk("secret", slide_tokens=0)))
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=())
    answer = await model.open("a", [Message("user", "Why?", slide_input())], SAMPLING)

    with pytest.raises(SlideLost):
        await anext(answer.pieces())
    await answer.close()
    await model.aclose()


GOOD = sse(token_chunk("x", slide_tokens=SLIDE_ROWS), done=False)


@pytest.mark.parametrize(
    "pieces",
    [
        [*GOOD, b'data: {"error": {"message": "EngineDeadError: /archive/patient", "code": 500}}\n\n'],
        [*GOOD],
        [*GOOD, b"data: [DO"],
        [],
        [*GOOD, b"data: garbage\n\n", b"data: [DONE]\n\n"],
        [*GOOD, b"data: []\n\n"],
        [*GOOD, b"data: null\n\n"],
        [*GOOD, b'data: {"choices": 5}\n\n'],
        [*GOOD, b'data: {"choices": [], "usage": {"prompt_tokens": "many"}}\n\n'],
        [*GOOD, b"data: \xff\xfe\n\n"],
        [b"<html>not vLLM</html>"],
    ],
    ids=[
        "error chunk",
        "cut before [DONE]",
        "cut in [DONE]",
        "empty",
        "garbage",
        "a list",
        "null",
        "wrong choices",
        "wrong usage",
        "not UTF-8",
        "HTML",
    ],
)
async def test_a_reply_that_breaks_off_or_is_none_is_a_failure(pieces: list[bytes]) -> None:
    vllm = FakeVllm()
    vllm.answer_with(*pieces)

    with pytest.raises(LanguageModelFailed) as caught:
        await ask(vllm)
    assert "patient" not in caught.value.detail
    assert vllm.streams[0].closed.is_set()


@pytest.mark.parametrize("error", [httpx.ReadError("gone"), httpx.RemoteProtocolError("cut"), httpx.ReadTimeout("…")])
async def test_a_connection_that_breaks_is_told_in_our_words(error: httpx.HTTPError) -> None:
    vllm = FakeVllm()
    vllm.answer_with(*GOOD, error)

    with pytest.raises(LanguageModelUnavailable):
        await ask(vllm)
    assert vllm.streams[0].closed.is_set()


@pytest.mark.parametrize("split", [1, 2, 3, 7])
async def test_a_reply_may_arrive_in_any_pieces(split: int) -> None:
    whole = b"".join(sse(token_chunk("Größe", slide_tokens=SLIDE_ROWS), token_chunk(" 5 µm")))
    vllm = FakeVllm()
    vllm.answer_with(*(whole[start : start + split] for start in range(0, len(whole), split)))

    pieces = await ask(vllm)

    assert pieces[:-1] == [Token("Größe"), Token(" 5 µm")]


async def test_tokens_that_arrive_together_are_one_piece() -> None:
    first, *rest = sse(token_chunk("No "), token_chunk("tum"), token_chunk("our."), {"choices": [], "usage": usage(32)})
    vllm = FakeVllm()
    vllm.answer_with(first, b"".join(rest))

    assert (await ask(vllm))[:-1] == [Token("No "), Token("tumour.")]


async def test_what_was_said_before_a_failure_in_the_same_moment_is_passed_on() -> None:
    vllm = FakeVllm()
    vllm.answer_with(b"".join([*sse(token_chunk("No "), done=False), b'data: {"error": {"code": 500}}\n\n']))
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=())
    answer = await model.open("a", [Message("user", "Why?", slide_input())], SAMPLING)
    pieces = answer.pieces()

    assert await anext(pieces) == Token("No ")
    with pytest.raises(LanguageModelFailed):
        await anext(pieces)
    await answer.close()
    await model.aclose()


async def test_what_comes_together_with_the_loss_of_the_slide_is_withheld() -> None:
    vllm = FakeVllm()
    vllm.answer_with(b"".join(sse(token_chunk("secret"), {"choices": [], "usage": usage(0)})))
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=())
    answer = await model.open("a", [Message("user", "Why?", slide_input())], SAMPLING)

    with pytest.raises(SlideLost):
        await anext(answer.pieces())
    await answer.close()
    await model.aclose()


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\v", "\r", "\n"])
async def test_an_answer_may_hold_any_line_separator(separator: str) -> None:
    vllm = FakeVllm(f"one{separator}two")

    assert (await ask(vllm))[0] == Token(f"one{separator}two")


async def test_comments_and_carriage_returns_of_the_stream_are_no_tokens() -> None:
    whole = b"".join(sse(token_chunk("x", slide_tokens=SLIDE_ROWS))).replace(b"\n", b"\r\n")
    vllm = FakeVllm()
    vllm.answer_with(b": ping\r\n\r\nevent: message\r\n", whole)

    assert (await ask(vllm))[0] == Token("x")


def refusal(status: int, text: str) -> FakeVllm:
    vllm = FakeVllm()
    vllm.script = lambda _: httpx.Response(status, text=text)
    return vllm


TOO_LONG = '{"error":{"message":"This model\'s maximum context length is 2048 tokens, patient Doe"}}'


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (400, TOO_LONG, QuestionTooLong),
        (400, '{"error":{"message":"The prompt is longer than the maximum model length"}}', QuestionTooLong),
        (400, "patient Doe", LanguageModelFailed),
        (401, "patient Doe", LanguageModelFailed),
        (404, TOO_LONG, LanguageModelFailed),
        (302, "", LanguageModelFailed),
        (500, "patient Doe", LanguageModelFailed),
        (500, "\x00" * 100_000, LanguageModelFailed),
        (429, "", LanguageModelUnavailable),
        (503, "", LanguageModelUnavailable),
    ],
)
async def test_a_refusal_is_told_in_our_words(status: int, text: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        await ask(refusal(status, text))

    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_another_replica_is_asked_when_one_refuses_before_it_answered(status: int) -> None:
    vllm = FakeVllm()

    def refuse_once(request: httpx.Request) -> httpx.Response:
        vllm.script = None
        return httpx.Response(status)

    vllm.script = refuse_once
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=(0,))
    answer = await model.open("a", [Message("user", "Why?")], SAMPLING)

    assert [piece.text async for piece in answer.pieces() if isinstance(piece, Token)] == list(vllm.words)
    assert len(vllm.requests) == 2
    assert vllm.requests[0].content == vllm.requests[1].content


@pytest.mark.parametrize(("status", "times"), [(500, 3), (429, 1), (400, 1)])
async def test_a_refusal_that_stays_or_is_the_requests_own_is_told(status: int, times: int) -> None:
    vllm = FakeVllm()
    vllm.script = lambda _: httpx.Response(status)
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=(0, 0))

    with pytest.raises(DependencyError):
        await model.open("a", [Message("user", "Why?")], SAMPLING)

    assert len(vllm.requests) == times


async def test_nobody_there_is_told_in_our_words() -> None:
    client = VllmClient(f"http://127.0.0.1:{free_loopback_port()}", "key")
    model = LanguageModel(client, "demo", INPUTS)

    assert await model.health() == "away"
    with pytest.raises(LanguageModelUnavailable):
        await model.open("a", [Message("user", "Why?")], SAMPLING)
    await model.aclose()


@pytest.mark.parametrize(("key", "sent"), [("secret", b"authorization: bearer secret"), ("", None)])
async def test_the_key_goes_over_a_real_connection_when_there_is_one(key: str, sent: bytes | None) -> None:
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        model = LanguageModel(VllmClient(f"http://127.0.0.1:{port}", key), "demo", INPUTS)
        with pytest.raises(LanguageModelFailed):
            await model.open("a", [Message("user", "Why?")], SAMPLING)
        await model.aclose()

    assert (b"authorization" in heads[0]) == (sent is not None)
    assert sent is None or sent in heads[0]


async def test_a_server_that_always_breaks_off_is_asked_twice() -> None:
    vllm = FakeVllm()

    def break_off(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    vllm.script = break_off
    model = LanguageModel(vllm.client(), "demo", INPUTS, retry_waits_s=(0, 0))

    with pytest.raises(LanguageModelUnavailable):
        await model.open("a", [Message("user", "Why?")], SAMPLING)
    assert len(vllm.requests) == 2


async def test_a_question_without_slide_expects_no_slide_tokens() -> None:
    vllm = FakeVllm()
    pieces: list[Any] = await ask(vllm, Message("user", "Why?"))

    assert pieces[-1].usage.slide_tokens == 0
    assert slide_parts(vllm.bodies[0]) == []
    assert "X-Slide-Id" not in vllm.requests[0].headers


async def test_what_broke_off_is_sent_again_on_a_new_connection() -> None:
    """All that were kept may be closed: vLLM closes idle ones, and a busy machine's timers are late."""
    asked: list[bool] = []

    class KeptOnesAreClosed(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(bool(request.extensions.get("new_connection")))
            if not asked[-1]:
                raise httpx.ReadError("The connection was closed.")
            return httpx.Response(503)

    client = VllmClient("http://vllm.test", transport=KeptOnesAreClosed())
    model = LanguageModel(client, "demo", INPUTS, retry_waits_s=())
    with pytest.raises(LanguageModelUnavailable, match="busy"):
        await model.open("a", [Message("user", "Why?")], Sampling(1, 0.0))
    assert asked == [False, True]
