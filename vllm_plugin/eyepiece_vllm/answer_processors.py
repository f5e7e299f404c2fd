"""transformers' processors over the tokens of an answer alone, for vLLM: repetition penalty, then ban of n-grams.

A request asks with `"vllm_xargs": {"generated_repetition_penalty": p, "no_repeat_ngram_size": n}`; without them nothing
changes. The published evaluations generate from embeddings, so that transformers has no ids of the prompt; vLLM's own
`repetition_penalty` counts the prompt, which is another number and is refused.

vLLM has two model runners with an interface each: on a CPU the first one runs, on a GPU the second. Both rules are one
processor for each, so that no server can be started with half of them, and they come in transformers' order. The server
is started with `--logits-processors eyepiece_vllm.answer_processors:<class>`, not through an entry point: vLLM's first
runner keeps the generated tokens for a processor only if it was named on the command line, and its second one refuses
to start beside an entry point of the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from eyepiece_vllm.ngram_ban import AnswerRow, ban_repeated_ngrams
from eyepiece_vllm.ngram_table import NgramTable
from eyepiece_vllm.repetition_penalty import PenaltyRow, penalise_said_tokens
from eyepiece_vllm.sampling_limits import refuse_unsafe_parameters
from eyepiece_vllm.vllm_internals import (
    BatchUpdate,
    DeviceLogitsProcessor,
    HostLogitsProcessor,
    LogitsContext,
    LogitsProcRequestState,
    SamplingParams,
    VllmConfig,
    VLLMValidationError,
    process_dict_updates,
)

NGRAM_SIZE = "no_repeat_ngram_size"
PENALTY = "generated_repetition_penalty"


def requested_size(params: SamplingParams) -> int | None:
    """n, or None when the request did not ask; raises VLLMValidationError unless it is a positive integer."""
    size = (params.extra_args or {}).get(NGRAM_SIZE)
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise VLLMValidationError(f"{NGRAM_SIZE} must be a positive integer.", parameter=NGRAM_SIZE)
    return size


def requested_penalty(params: SamplingParams) -> float:
    """1.0 when the request did not ask; raises VLLMValidationError unless it is a positive number."""
    penalty = (params.extra_args or {}).get(PENALTY)
    if penalty is None:
        return 1.0
    if isinstance(penalty, bool) or not isinstance(penalty, (int, float)) or not 0 < penalty < math.inf:
        raise VLLMValidationError(f"{PENALTY} must be a positive number.", parameter=PENALTY)
    return float(penalty)


def check_request(params: SamplingParams) -> None:
    """Refuses a request before it reaches the engine: raises VLLMValidationError."""
    refuse_unsafe_parameters(params)
    requested_size(params)
    requested_penalty(params)


@dataclass(frozen=True)
class _HostAnswer:
    """What one request of the first runner asked for; `generated` is vLLM's own list, which grows between calls."""

    generated: Sequence[int]
    penalty: float
    ngrams: NgramTable | None

    def apply(self, logits: torch.Tensor) -> None:
        """Changes its row of logits [V] in place."""
        if self.penalty != 1.0 and self.generated:
            said = torch.tensor(sorted(set(self.generated)), device=logits.device)
            scores = logits[said]
            logits[said] = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        if self.ngrams is not None and (banned := self.ngrams.banned()):
            logits[torch.tensor(banned, device=logits.device)] = -torch.inf


class HostAnswerProcessor(HostLogitsProcessor):
    """For vLLM's first model runner: each row of the batch whose request asked for something."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses a request before it reaches the engine."""
        check_request(sampling_params)

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._answers: dict[int, _HostAnswer] = {}

    def is_argmax_invariant(self) -> bool:
        """False: it changes greedy answers, which is its purpose."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Requests that joined, left or changed rows; what is known of an answer moves with its request."""
        process_dict_updates(self._answers, batch_update, _host_answer)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Changes the logits [rows, vocabulary] in place."""
        for row, answer in self._answers.items():
            answer.apply(logits[row])
        return logits


class DeviceAnswerProcessor(DeviceLogitsProcessor):
    """For vLLM's second model runner, where generated tokens stay on the device: all rows are changed there at once."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses a request before it reaches the engine."""
        check_request(sampling_params)

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        if vllm_config.speculative_config is not None:
            raise ValueError(f"{PENALTY} and {NGRAM_SIZE} do not work with speculative decoding; switch that off.")
        self._states = req_states
        # By slot; 0 and 1.0 = not asked for.
        self._sizes = np.zeros(req_states.max_num_reqs, np.int64)
        self._penalties = np.ones(req_states.max_num_reqs, np.float64)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Takes over a slot; False when its logits stay as they are."""
        self._sizes[req_idx] = requested_size(sampling_params) or 0
        self._penalties[req_idx] = requested_penalty(sampling_params)
        return bool(self._sizes[req_idx]) or bool(self._penalties[req_idx] != 1.0)

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Changes the logits [rows, vocabulary] in place; row i is request i of the batch."""
        starts, ends = self._states.prompt_len.np, ctx.seq_lens_upper_bound_np
        places = [(row, int(slot), int(starts[slot]), int(ends[row])) for row, slot in enumerate(ctx.idx_mapping_np)]
        tokens = self._states.all_token_ids.gpu
        penalised = [PenaltyRow(*place, float(self._penalties[place[1]])) for place in places]
        penalise_said_tokens(logits, tokens, penalised)
        ban_repeated_ngrams(logits, tokens, [AnswerRow(*place, int(self._sizes[place[1]])) for place in places])
        return logits


def _host_answer(params: SamplingParams, _prompt: list[int] | None, generated: list[int]) -> _HostAnswer | None:
    size, penalty = requested_size(params), requested_penalty(params)
    if size is None and penalty == 1.0:
        return None
    return _HostAnswer(generated, penalty, None if size is None else NgramTable(size, generated))
