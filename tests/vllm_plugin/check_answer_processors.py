"""Both logits processors against transformers' own, on random answers in batches that change at every step.

Run by the Python of the vLLM environment; it asserts and prints nothing. vLLM's own builder of batch updates and its
own request-state class are used where they need no GPU.
"""

import math
import random
from types import SimpleNamespace

import numpy as np
import torch
from eyepiece_vllm.answer_processors import DeviceAnswerProcessor, HostAnswerProcessor
from eyepiece_vllm.ngram_table import NgramTable
from transformers import GenerationConfig, GenerationMixin
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcRequestState

VOCABULARY = 9  # small, so that n-grams repeat
SLOTS = 6
LONGEST = 64


class Decoder(GenerationMixin):
    """What transformers asks of a model before it lists its processors."""

    config = SimpleNamespace(is_encoder_decoder=False)


class Request:
    """One answer: its prompt, what was generated, and which n and penalty it asked for, if any."""

    def __init__(self, rng: random.Random) -> None:
        size = rng.choice([None, 1, 2, 3, 4])
        penalty = rng.choice([None, 1.0, 1.15, 1.2, 2, 0.8])
        asked = {"no_repeat_ngram_size": size, "generated_repetition_penalty": penalty}
        self.params = SamplingParams(extra_args={name: value for name, value in asked.items() if value is not None})
        self.changes_logits = size is not None or penalty not in (None, 1.0)
        # transformers' own list, in its own order.
        config = GenerationConfig(no_repeat_ngram_size=size, repetition_penalty=float(penalty or 1.0))
        self.reference = Decoder()._get_logits_processor(config)
        # One id more than there is: a slide's placeholder lies behind the vocabulary.
        self.prompt = [rng.randrange(VOCABULARY + 1) for _ in range(rng.randrange(1, 9))]
        self.generated = [rng.randrange(VOCABULARY) for _ in range(rng.choice([0, 0, 7]))]  # 7: back after preemption

    def expected(self, logits: torch.Tensor) -> torch.Tensor:
        """transformers' processors over the generated ids alone, as they see them when they were given embeddings."""
        if not self.generated:
            return logits
        return self.reference(torch.tensor([self.generated]), logits[None].clone())[0]

    def grow(self, logits: torch.Tensor, rng: random.Random) -> None:
        """Appends a token that is allowed; where all are banned, any."""
        allowed = torch.isfinite(logits).nonzero().flatten().tolist() or [0]
        self.generated.append(rng.choice(allowed))


def check_rows_that_join_leave_and_move(seed: int) -> None:
    """The first runner's interface: after every step a request may leave, be replaced, move or exchange rows."""
    rng, processor = random.Random(seed), HostAnswerProcessor(SimpleNamespace(), torch.device("cpu"), False)
    rows: dict[int, Request] = {}
    for _ in range(60):
        update = change_rows(rows, rng)
        processor.update_state(update)
        logits = torch.randn(SLOTS, VOCABULARY)
        found = processor.apply(logits.clone())
        for row in range(SLOTS):
            expected = rows[row].expected(logits[row]) if row in rows else logits[row]
            assert torch.equal(found[row], expected), (seed, row)
        for row, request in rows.items():
            request.grow(found[row], rng)


def change_rows(rows: dict[int, Request], rng: random.Random) -> BatchUpdate | None:
    """Changes `rows` and says so as vLLM does: removed, added (also in place of another), then moved."""
    removed, added, moved = [], [], []
    match rng.choice(["nothing", "leave", "join", "join", "replace", "move", "swap"]):
        case "leave" if rows:
            removed.append(gone := rng.choice(list(rows)))
            del rows[gone]
        case "join" if len(rows) < SLOTS:
            added.append(join(rows, min(set(range(SLOTS)) - set(rows)), rng))
        case "replace" if rows:
            added.append(join(rows, rng.choice(list(rows)), rng))
        case "move" if rows and len(rows) < SLOTS:
            source, target = rng.choice(list(rows)), min(set(range(SLOTS)) - set(rows))
            rows[target] = rows.pop(source)
            moved.append((source, target, MoveDirectionality.UNIDIRECTIONAL))
        case "swap" if len(rows) > 1:
            one, other = rng.sample(list(rows), 2)
            rows[one], rows[other] = rows[other], rows[one]
            moved.append((one, other, MoveDirectionality.SWAP))
    return BatchUpdate(len(rows), removed, added, moved) if removed or added or moved else None


def join(rows: dict[int, Request], row: int, rng: random.Random) -> tuple:
    """A new request in a row."""
    rows[row] = request = Request(rng)
    return row, request.params, request.prompt, request.generated


def check_slots_of_the_second_runner(seed: int) -> None:
    """The second runner's interface: slots are reused, rows come in any order, some are still in their prompt."""
    rng = random.Random(seed)
    tokens, prompt_len = torch.zeros(SLOTS, LONGEST, dtype=torch.int32), np.zeros(SLOTS, np.int32)
    states = LogitsProcRequestState(
        device=torch.device("cpu"),
        max_num_reqs=SLOTS,
        vocab_size=VOCABULARY,
        all_token_ids=SimpleNamespace(gpu=tokens),
        prompt_len=SimpleNamespace(np=prompt_len),
        prefill_len=None,
        total_len=None,
    )
    processor = DeviceAnswerProcessor(SimpleNamespace(speculative_config=None), states)
    slots: dict[int, Request] = {}
    for step in range(60):
        if step < SLOTS or rng.random() < 0.2:
            slot = step if step < SLOTS else rng.randrange(SLOTS)
            slots[slot] = request = Request(rng)
            prompt_len[slot] = len(request.prompt)
            assert processor.add_request(slot, request.params) is request.changes_logits
        batch = rng.sample(list(slots), rng.randint(1, len(slots)))
        check_device_step(processor, tokens, {slot: slots[slot] for slot in batch}, rng)


def check_device_step(
    processor: DeviceAnswerProcessor, tokens: torch.Tensor, batch: dict[int, Request], rng: random.Random
) -> None:
    """One step; what lies behind a request's end in its slot is another's and must not be read."""
    lengths = []
    for slot, request in batch.items():
        both = request.prompt + request.generated
        tokens[slot] = torch.randint(VOCABULARY, (LONGEST,))
        tokens[slot, : len(both)] = torch.tensor(both)
        lengths.append(len(both))
    logits = torch.randn(len(batch), VOCABULARY)
    context = SimpleNamespace(idx_mapping_np=np.array(list(batch)), seq_lens_upper_bound_np=np.array(lengths))
    found = processor.apply(logits.clone(), context)
    in_prompt = SimpleNamespace(idx_mapping_np=np.array(list(batch)), seq_lens_upper_bound_np=np.ones(len(batch), int))
    assert torch.equal(processor.apply(logits.clone(), in_prompt), logits)
    for row, request in enumerate(batch.values()):
        assert torch.equal(found[row], request.expected(logits[row]))
        if len(request.prompt) + len(request.generated) < LONGEST:
            request.grow(found[row], rng)


def check_tokens_that_vllm_takes_back() -> None:
    """vLLM shortens the list after a lost cache block; what was counted is forgotten."""
    generated = [1, 2, 3, 1, 2]
    table = NgramTable(3, generated)
    assert list(table.banned()) == [3]
    del generated[2:]
    assert list(table.banned()) == []
    generated += [4, 1, 2]
    assert list(table.banned()) == [4]


def check_what_is_refused() -> None:
    """Before the request reaches the engine, whichever runner it is."""
    for processor in (HostAnswerProcessor, DeviceAnswerProcessor):
        processor.validate_params(SamplingParams())
        for wrong in (0, -1, 2.0, "3", [3], True):
            assert "integer" in refusal(processor, SamplingParams(extra_args={"no_repeat_ngram_size": wrong})), wrong
        for wrong in (0, -1.15, 0.0, math.inf, math.nan, "1.15", [1.15], True):
            asked = SamplingParams(extra_args={"generated_repetition_penalty": wrong})
            assert "positive number" in refusal(processor, asked), wrong


def check_that_the_sampler_stays_inside_its_tables() -> None:
    """A slide's placeholder may lie behind the vocabulary, and vLLM looks prompt ids up in tables of it."""
    for processor in (HostAnswerProcessor, DeviceAnswerProcessor):
        processor.validate_params(SamplingParams(repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0))
        for name, value in (
            ("repetition_penalty", 1.1),
            ("frequency_penalty", 0.5),
            ("presence_penalty", -0.5),
            ("prompt_logprobs", 0),
            ("prompt_logprob_token_ids", np.zeros((1, 1), np.int64)),
        ):
            params = SamplingParams()
            setattr(params, name, value)
            assert name in refusal(processor, params), name


def refusal(processor: type, params: SamplingParams) -> str:
    """What the processor says against it; empty when it accepts."""
    try:
        processor.validate_params(params)
    except VLLMValidationError as error:
        return str(error)
    return ""


def main() -> None:
    """All checks."""
    torch.manual_seed(0)
    for seed in range(20):
        check_rows_that_join_leave_and_move(seed)
        check_slots_of_the_second_runner(seed)
    check_tokens_that_vllm_takes_back()
    check_what_is_refused()
    check_that_the_sampler_stays_inside_its_tables()


if __name__ == "__main__":
    main()
