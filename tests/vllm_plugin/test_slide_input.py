"""A wrong slide or a stray placeholder is the client's fault, said in our words, and the engine goes on."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from vllm_requests import Messages, npy, question, slide_part, slide_tokens
from vllm_server import VllmServer

from model_store.installed import InstalledModel

pytestmark = pytest.mark.vllm

WIDTH = 96
MOST = 32
ASK = "<image> \nWhich grade?"
CANARY = "canary 1947-03-12"
# One white pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def healthy_answer(vllm: VllmServer) -> Callable[[], str]:
    """Asks the same good question each time; the answer must not change either."""

    def ask() -> str:
        body = vllm.chat([question(ASK, good())]).raise_for_status().json()
        return str(body["choices"][0]["message"]["content"])

    return ask


def good(seed: int = 0) -> dict[str, Any]:
    return slide_part(npy(slide_tokens(MOST, WIDTH, seed)))


def filled(value: float, dtype: Any = np.float16) -> str:
    slide = slide_tokens(MOST, WIDTH).astype(dtype)
    slide[3, 5] = value
    return npy(slide)


def about(encoded: object) -> Messages:
    return [question(ASK, slide_part(encoded))]


SLIDE = slide_tokens(MOST, WIDTH)
REFUSED: dict[str, tuple[Messages, str]] = {
    "too narrow": (about(npy(SLIDE[:, 1:])), "must be 96 wide, not 95"),
    "already padded": (about(npy(np.pad(SLIDE, ((0, 0), (0, 32))))), "must be 96 wide, not 128"),
    "rank 3": (about(npy(SLIDE[None])), "must have rank 2"),
    "rank 3 as wide as the language model": (about(npy(np.zeros((1, 4, 128), np.float16))), "must be 96 wide"),
    "rank 1": (about(npy(SLIDE[0])), "must have rank 2"),
    "rank 0": (about(npy(np.float16(1))), "must have rank 2"),
    "no rows": (about(npy(SLIDE[:0])), "must have 1 to 32 slide tokens, not 0"),
    "too many rows": (about(npy(slide_tokens(MOST + 1, WIDTH))), "must have 1 to 32 slide tokens, not 33"),
    "doubles": (about(npy(SLIDE.astype(np.float64))), "must be float16, bfloat16 or float32"),
    "integers": (about(npy(SLIDE.astype(np.int8))), "must be float16, bfloat16 or float32"),
    "complex numbers": (about(npy(SLIDE.astype(np.complex64))), "must be float16, bfloat16 or float32"),
    "NaN": (about(filled(np.nan)), "hold NaN"),
    "infinity": (about(filled(-np.inf, np.float32)), "hold NaN or values beyond"),
    "an image": (
        [question(ASK, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})],
        "must be sent as an image_embeds part",
    ),
    "named arrays": (about({"slide_tokens": npy(SLIDE)}), "must be sent as an image_embeds part"),
    "two placeholders": ([question(f"{ASK} <image>", good())], "holds 2 slide placeholders for 1 slides"),
    "a placeholder in a later turn": (
        [question(ASK, good()), {"role": "assistant", "content": "Two."}, question("<image> why?")],
        "holds 2 slide placeholders for 1 slides",
    ),
    "a placeholder without a slide": ([question(ASK)], "no slide came with it"),
    "a placeholder in a plain string": ([{"role": "user", "content": ASK}], "no slide came with it"),
}
# Refused before our code sees them; that it is a 400 and the engine lives is what matters.
REFUSED_BY_VLLM: dict[str, Messages] = {
    "two slides": [question(ASK, good(), good(1))],
    "not base64": about("@@@@"),
    "a truncated array": about(base64.b64encode(base64.b64decode(npy(SLIDE))[:300]).decode()),
    "an array of objects": about(npy(np.array([{}], dtype=object))),
    "a uuid that is not cached, without the slide": [question(ASK, slide_part(None, uuid="f" * 64))],
    "neither slide nor uuid": about(None),
    "a question beyond the context": [question(f"{ASK} {'why ' * 5000}", good())],
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_and_the_engine_goes_on(
    vllm: VllmServer, healthy_answer: Callable[[], str], case: str
) -> None:
    messages, reason = REFUSED[case]
    before = healthy_answer()

    refused = vllm.chat(messages)

    assert refused.status_code == 400, refused.text
    assert reason in refused.json()["error"]["message"]
    assert healthy_answer() == before


@pytest.mark.parametrize("case", REFUSED_BY_VLLM)
def test_what_vllm_refuses_itself_leaves_the_engine_alive(
    vllm: VllmServer, healthy_answer: Callable[[], str], case: str
) -> None:
    before = healthy_answer()

    assert vllm.chat(REFUSED_BY_VLLM[case]).status_code == 400
    assert healthy_answer() == before


def test_a_pickle_is_not_executed(
    vllm: VllmServer, healthy_answer: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    trace = tmp_path_factory.mktemp("pickle") / "executed"
    pickled = f"cposix\nsystem\n(S'touch {trace}'\ntR.".encode()

    refused = vllm.chat(about(base64.b64encode(pickled).decode()))

    assert refused.status_code == 500, "vLLM's own answer to what torch.load refuses"
    assert not trace.exists()
    assert healthy_answer()


@pytest.mark.parametrize("prompt", ["grade <image> tumour", [5, "placeholder", 8], ["placeholder"] * 40])
def test_a_placeholder_on_a_route_without_checks_cannot_end_the_engine(
    vllm: VllmServer, demo: InstalledModel, healthy_answer: Callable[[], str], prompt: Any
) -> None:
    outside = json.loads((demo.llm_folder / "config.json").read_text())["image_token_index"]
    ids = prompt if isinstance(prompt, str) else [outside if part == "placeholder" else part for part in prompt]
    before = healthy_answer()

    answered = vllm.post("/v1/completions", {"prompt": ids, "max_tokens": 2})

    assert answered.status_code == 200
    assert healthy_answer() == before


def test_the_arrays_here_match_the_demo_model(demo: InstalledModel) -> None:
    spec = demo.manifest.slide_stage
    assert (spec.embed_dim, spec.slide_tokens) == (WIDTH, MOST)


def test_no_question_and_no_answer_reaches_the_log(vllm: VllmServer) -> None:
    good_request = [question(f"{ASK} {CANARY}", good())]
    answer = vllm.chat(good_request).raise_for_status().json()["choices"][0]["message"]["content"]
    vllm.chat(good_request, stream=True).raise_for_status()
    for wrong in (
        [question(f"<image> {CANARY}")],
        [question(f"{ASK} {CANARY} <image>", good())],
        [question(f"{ASK} {CANARY}", slide_part(CANARY))],
        [question(f"{ASK} {CANARY}", slide_part(base64.b64encode(CANARY.encode()).decode()))],
        [question(f"{ASK} {CANARY} {'why ' * 5000}", good())],
        [{"role": "user", "content": [{"type": CANARY, "text": CANARY}]}],
        [{"role": "user", "content": {"text": CANARY}}],
    ):
        assert vllm.chat(wrong).status_code >= 400

    log = vllm.log.read_text()
    assert "/v1/chat/completions" in log, "the log is the one these requests went to"
    assert CANARY not in log
    assert answer not in log
