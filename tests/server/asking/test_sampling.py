"""How tokens are chosen: the client's options over the model's own, and nothing that only one of them knows is lost."""

import pytest

from model_store.manifest import packaged_manifest
from server.asking.answer_schema import answer_schema
from server.asking.language_model import Sampling
from server.asking.questions import SamplingOptions, sampling

HWSI = packaged_manifest("mllm-hwsi")


def test_mllm_hwsi_answers_greedily_with_its_penalties() -> None:
    assert sampling(SamplingOptions(), HWSI) == Sampling(
        max_tokens=512,
        temperature=0.0,
        top_p=0.9,
        top_k=20,
        no_repeat_ngram_size=3,
        generated_repetition_penalty=1.15,
    )


@pytest.mark.parametrize(
    ("options", "top_p"),
    [(SamplingOptions(temperature=0.7), 0.9), (SamplingOptions(temperature=0.7, top_p=0.5, seed=3, max_tokens=9), 0.5)],
)
def test_a_temperature_of_the_clients_leaves_the_models_other_choices_in_force(
    options: SamplingOptions, top_p: float
) -> None:
    how = sampling(options, HWSI)

    assert (how.temperature, how.top_p, how.top_k) == (0.7, top_p, 20)
    assert (how.no_repeat_ngram_size, how.generated_repetition_penalty) == (3, 1.15)


def test_json_may_repeat_its_punctuation_and_its_names() -> None:
    schema = answer_schema({"type": "object", "properties": {"a": {"type": "boolean"}}})
    how = sampling(SamplingOptions(schema=schema), HWSI)

    assert how.schema is schema
    assert (how.no_repeat_ngram_size, how.generated_repetition_penalty) == (None, None)


def test_no_more_tokens_are_asked_for_than_the_context_holds() -> None:
    assert sampling(SamplingOptions(max_tokens=100_000), HWSI).max_tokens == HWSI.llm.max_model_len
