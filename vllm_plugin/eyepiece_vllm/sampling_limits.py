"""Limits on vLLM's sampling parameters: those that count or score the prompt, where a slide's placeholders stand.

Qwen's vocabulary holds its placeholder. Vicuna's does not: there it is id 32000 of 0 to 31999, and vLLM 0.32, which
looks prompt ids up in tables of the vocabulary, does not expect that. So its source says; the first point was seen too,
the kernel run by Triton's interpreter:

- Penalties. The second model runner marks prompt ids as bits in a row of ceil(vocabulary / 32) words for each request
  (`_bincount_kernel`). The placeholder's word is the first of the next request's row, and behind the last row other
  memory. It does so for frequency and presence penalties too, which do not use the marks. The first runner counts
  prompt ids in a table with one spare column; an id beyond that ends the engine.
- Log-probabilities of the prompt. Each prompt id's logit is read: the second runner reads behind the row, the first one
  ends the engine.

Inside the vocabulary nothing breaks, but nothing is meant by it either: the repetition penalty would count question and
system sentence, which the published evaluations do not, and a placeholder's probability says nothing of a slide. So all
are refused, whatever the model: who asks our API for them is refused there, and nobody else should ask.

One use is meant: how likely an answer is that stands at the prompt's end, behind a slide. Rows of a slide have an id of
the vocabulary (`slide_input`), and a chat template refuses a placeholder without a slide, so a chat holds no other. Our
API asks for that, and says so with `"vllm_xargs": {"score_answer": 1}` beside `"prompt_logprobs": 0`, which gives each
token's own log-probability and no other token's.
"""

from eyepiece_vllm.vllm_internals import SamplingParams, VLLMValidationError

_NEUTRAL_PENALTIES = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
_PROMPT_SCORES = ("prompt_logprobs", "prompt_logprob_token_ids")
_SCORE_ANSWER = "score_answer"


def refuse_unsafe_parameters(params: SamplingParams) -> None:
    """Raises VLLMValidationError when the sampler would count or score the prompt; before the request is queued."""
    for name, neutral in _NEUTRAL_PENALTIES.items():
        if getattr(params, name) != neutral:
            raise VLLMValidationError(
                f"{name} is not possible here: vLLM would count the prompt, whose placeholders may lie beyond its "
                "tables. Leave it out; generated_repetition_penalty and no_repeat_ngram_size look at the answer.",
                parameter=name,
            )
    for name in _PROMPT_SCORES:
        if getattr(params, name) is not None and not (name == "prompt_logprobs" and _scores_an_answer(params)):
            raise VLLMValidationError(
                f"{name} is not possible here: a slide's placeholders have no probability. Leave it out.",
                parameter=name,
            )


def _scores_an_answer(params: SamplingParams) -> bool:
    return params.prompt_logprobs == 0 and (params.extra_args or {}).get(_SCORE_ANSWER) == 1
