"""Watches whether vLLM makes tokens. Its health check also answers while its engine, another process, hangs.

Real answers tell: while tokens come, all is well. When none has come for a while, one token about a blank slide of full
size is asked for, through the very path of a question. Has no token come since, of this answer or any other, the engine
counts as stopped until one comes. A health check that is not answered in time says nothing: a busy machine's is not
either. Behind a balancer one of several replicas may be stopped, or starting: another blank slide, which goes to
another one, is asked about next.
"""

import asyncio
import time
from contextlib import aclosing

import numpy as np
import structlog

from encoders.embedding_file import to_bytes
from encoders.types import SlideEmbedding
from model_store.contracts.slide_rows import ROWS
from model_store.errors import EyepieceError
from model_store.manifest import Manifest
from server.asking.language_model import LanguageModel, Message, Sampling
from server.embeddings.cache import CachedEmbedding
from server.embeddings.slide_inputs import SlideInputs
from server.slides.slide_record import now
from server.to_the_end import stop

log = structlog.get_logger(__name__)
_PROBE_TENANT = "warm-up"
_AWAY = "The language model does not answer; try again shortly."
_COLD = "The language model is starting, or does not answer correctly yet; try again shortly."
_STOPPED = "The language model is running but produces no tokens; try again shortly."
# Most probes are answered within one look, which then knows.
_LOOK_WAITS_S = 1.0


class EngineWatch:
    """Looks now and then; the language model refuses questions at once while nobody would answer them."""

    def __init__(
        self,
        language_model: LanguageModel,
        slide_inputs: SlideInputs,
        manifest: Manifest,
        probe_after_s: float = 5.0,
        stopped_after_s: float = 15.0,
    ) -> None:
        """Silence of `probe_after_s` is looked into; a probe that takes `stopped_after_s` means a stopped engine, which
        is more than any queue of ours keeps all questions waiting.
        """
        self._language_model = language_model
        self._slide_inputs = slide_inputs
        self._manifest = manifest
        self._probe_after_s = probe_after_s
        self._stopped_after_s = stopped_after_s
        self._probe: asyncio.Task[bool] | None = None
        self._probed_since = 0.0
        self._answers = False
        self._is_warm = False  # has answered since it came up; the first answer may take minutes
        self._unanswered = 0

    async def look(self) -> bool:
        """Whether questions are answered now. While they are not, those that wait already are given up."""
        answers = await self._look()
        self._language_model.give_up_silent()
        return answers

    async def _look(self) -> bool:
        model = self._language_model
        if await model.health() == "away":  # a silent one is judged by its tokens alone: those may well come
            await self.aclose()
            if not self._answers:  # the second time: one replica may be taking another's place
                model.refusal = _AWAY
            self._answers = self._is_warm = False
            return False
        if self._probe is None and not (self._answers and model.silent_for_s() < self._probe_after_s):
            self._probed_since = time.monotonic()
            self._probe = asyncio.create_task(self._ask())
        if self._probe is not None:
            await asyncio.wait([self._probe], timeout=min(_LOOK_WAITS_S, self._stopped_after_s))
            self._answers = await self._judge(self._probe)
        if self._answers:
            self._is_warm = True
            model.refusal = None
        return self._answers

    async def aclose(self) -> None:
        """End the probe that runs."""
        if self._probe is not None:
            await stop(self._probe)
            self._probe = None

    async def _judge(self, probe: "asyncio.Task[bool]") -> bool:
        """What the probe says, or while it runs what has come since it was sent."""
        model = self._language_model
        probed_for_s = time.monotonic() - self._probed_since
        others_are_answered = self._answers and model.silent_for_s() < probed_for_s
        if probe.done():
            self._probe = None
            if probe.result() or others_are_answered:
                return True
            self._unanswered += 1
            model.refusal = _COLD
            return False
        if probed_for_s < self._stopped_after_s or not self._is_warm:
            return self._answers
        await self.aclose()
        self._unanswered += 1
        if others_are_answered:
            return True
        log.warning("language_model_stopped", duration_ms=round(probed_for_s * 1000))
        model.refusal = _STOPPED
        return False

    async def _ask(self) -> bool:
        slide = self._slide_inputs.make(_PROBE_TENANT, blank_embedding(self._manifest, self._unanswered))
        try:
            answer = await self._language_model.open(
                _PROBE_TENANT, [Message("user", "Describe the slide.", slide)], Sampling(1, 0.0), is_probe=True
            )
            try:
                async with aclosing(answer.pieces()) as pieces:
                    _ = [piece async for piece in pieces]
            finally:
                await answer.close()
        except EyepieceError as error:
            log.warning("language_model_warm_up_failed", code=error.code)
            return False
        return True


def blank_embedding(manifest: Manifest, number: int = 0) -> CachedEmbedding:
    """An embedding of zeros as the served model has them; it belongs to no slide, and there are many of them."""
    rows = manifest.slide_stage.blank_rows(manifest.inputs)
    tensors = {ROWS: np.zeros((rows, manifest.row_width), np.float16)}
    embedding = SlideEmbedding(f"{number:064x}", "0" * 16, tensors, 1, "override", now().isoformat())
    return CachedEmbedding(embedding, to_bytes(embedding))
