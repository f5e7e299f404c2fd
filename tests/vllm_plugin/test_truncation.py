"""vLLM refuses what does not fit and cuts nothing; the server asks again with fewer of the oldest turns."""

import pytest
from vllm_requests import npy, slide_tokens
from vllm_server import VllmServer

from model_store.installed import InstalledModel
from server.asking.control_text import ControlText
from server.asking.conversations import Conversation, Turn
from server.asking.fit_conversation import open_dropping_old_turns
from server.asking.language_model import Answer, Finished, LanguageModel, Sampling
from server.asking.questions import conversation_messages
from server.asking.vllm_client import VllmClient
from server.embeddings.slide_inputs import SlideInput, SlideInputs
from server.errors import QuestionTooLong
from server.slides.slide_record import now

pytestmark = pytest.mark.vllm

TURNS = 6
# 300 words are 300 tokens or more of the 2,048 that the demo holds: some of the turns fit, not all.
LONG_ANSWER = "tumour " * 500


async def test_slide_and_newest_question_stay_whole_and_the_oldest_turns_go(
    vllm: VllmServer, demo: InstalledModel
) -> None:
    spec = demo.manifest.slide_stage
    slide = SlideInput(npy(slide_tokens(spec.slide_tokens, spec.embed_dim)), "b" * 64, spec.slide_tokens, "route")
    turns = tuple(Turn(question=f"{n}?", answer=LONG_ANSWER, created_at=now()) for n in range(TURNS))
    conversation = Conversation(id="c", slide_id="s", created_at=now(), turns=turns)
    model = LanguageModel(VllmClient(vllm.url, vllm.key), vllm.model, SlideInputs("digest", "secret"))

    async def open_without(left_out: int, question: str = "Which grade?") -> Answer:
        messages = conversation_messages(slide, conversation, question, ControlText(), left_out)
        return await model.open("tenant", messages, Sampling(4, 0.0))

    try:
        fitting = await open_dropping_old_turns(open_without, TURNS, 0)
        pieces = [piece async for piece in fitting.answer.pieces()]
        await fitting.answer.close()

        assert 0 < fitting.turns_left_out < TURNS
        assert isinstance(pieces[-1], Finished)
        assert pieces[-1].usage.slide_tokens == spec.slide_tokens
        with pytest.raises(QuestionTooLong):
            await open_without(fitting.turns_left_out - 1)
        with pytest.raises(QuestionTooLong):
            await open_without(TURNS, "tumour " * 3000)
    finally:
        await model.aclose()
