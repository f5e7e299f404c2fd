"""transformers' `no_repeat_ngram_size` for vLLM: no n-gram stands in an answer twice.

A request asks for it with `"vllm_xargs": {"no_repeat_ngram_size": n}`; without it nothing changes. vLLM has two model
runners with an interface each: on a CPU the first one runs, on a GPU the second. The server is started with
`--logits-processors eyepiece_vllm.no_repeat_ngram:<class>`, not through an entry point: vLLM's first runner keeps the
generated tokens for a processor only if it was named on the command line, and its second one refuses to start beside
an entry point of the first.
"""

import numpy as np
import torch

from eyepiece_vllm.ngram_ban import AnswerRow, ban_repeated_ngrams
from eyepiece_vllm.ngram_table import NgramTable
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

PARAMETER = "no_repeat_ngram_size"


def requested_size(params: SamplingParams) -> int | None:
    """n, or None when the request did not ask; raises VLLMValidationError unless it is a positive integer."""
    size = (params.extra_args or {}).get(PARAMETER)
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise VLLMValidationError(f"{PARAMETER} must be a positive integer.", parameter=PARAMETER)
    return size


class HostNoRepeatNgram(HostLogitsProcessor):
    """For vLLM's first model runner: a table for each row of the batch whose request asked for it."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses a request before it reaches the engine."""
        refuse_unsafe_parameters(sampling_params)
        requested_size(sampling_params)

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._tables: dict[int, NgramTable] = {}

    def is_argmax_invariant(self) -> bool:
        """False: it changes greedy answers, which is its purpose."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Requests that joined, left or changed rows; a table moves with its request."""
        process_dict_updates(self._tables, batch_update, _new_table)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Sets the logits [rows, vocabulary] of all banned tokens to -inf, in place and at once."""
        banned = [(row, token) for row, table in self._tables.items() for token in table.banned()]
        if banned:
            rows, tokens = torch.tensor(banned, device=logits.device).unbind(dim=1)
            logits[rows, tokens] = -torch.inf
        return logits


class DeviceNoRepeatNgram(DeviceLogitsProcessor):
    """For vLLM's second model runner, where generated tokens stay on the device: all are compared there at once."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses a request before it reaches the engine."""
        refuse_unsafe_parameters(sampling_params)
        requested_size(sampling_params)

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        if vllm_config.speculative_config is not None:
            raise ValueError(f"{PARAMETER} does not work with speculative decoding; switch that off.")
        self._states = req_states
        self._sizes = np.zeros(req_states.max_num_reqs, np.int64)  # by slot; 0 = not asked for

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Takes over a slot; False when its logits stay as they are."""
        self._sizes[req_idx] = requested_size(sampling_params) or 0
        return bool(self._sizes[req_idx])

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Sets the logits [rows, vocabulary] of banned tokens to -inf, in place; row i is request i of the batch."""
        starts, ends = self._states.prompt_len.np, ctx.seq_lens_upper_bound_np
        answers = [
            AnswerRow(row, int(slot), int(starts[slot]), int(ends[row]), int(self._sizes[slot]))
            for row, slot in enumerate(ctx.idx_mapping_np)
            if self._sizes[slot]
        ]
        ban_repeated_ngrams(logits, self._states.all_token_ids.gpu, answers)
        return logits


def _new_table(params: SamplingParams, _prompt: list[int] | None, generated: list[int]) -> NgramTable | None:
    size = requested_size(params)
    return None if size is None else NgramTable(size, generated)
