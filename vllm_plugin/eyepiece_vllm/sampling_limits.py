"""Limits on vLLM's sampling parameters: it looks prompt ids up in tables of the vocabulary.

A slide's placeholder lies behind the vocabulary (Vicuna: id 32000 of 0 to 31999). vLLM 0.32 does not expect that. So
its source says; the first point was seen too, the kernel run by Triton's interpreter:

- Penalties. The second model runner marks prompt ids as bits in a row of ceil(vocabulary / 32) words for each request
  (`_bincount_kernel`). The placeholder's word is the first of the next request's row, and behind the last row other
  memory. It does so for frequency and presence penalties too, which do not use the marks. The first runner counts
  prompt ids in a table with one spare column; an id beyond that ends the engine.
- Log-probabilities of the prompt. Each prompt id's logit is read: the second runner reads behind the row, the first one
  ends the engine.

So both are refused, whatever the model: who asks our API for them is refused there, and nobody else should ask.
"""

from eyepiece_vllm.vllm_internals import SamplingParams, VLLMValidationError

_NEUTRAL_PENALTIES = {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
_PROMPT_SCORES = ("prompt_logprobs", "prompt_logprob_token_ids")


def refuse_unsafe_parameters(params: SamplingParams) -> None:
    """Raises VLLMValidationError when the sampler would reach past its tables; before the engine has the request."""
    for name, neutral in _NEUTRAL_PENALTIES.items():
        if getattr(params, name) != neutral:
            raise VLLMValidationError(
                f"{name} is not possible here: vLLM would write past its table for the slide's placeholder. "
                "Leave it out; no_repeat_ngram_size keeps answers from repeating themselves.",
                parameter=name,
            )
    for name in _PROMPT_SCORES:
        if getattr(params, name) is not None:
            raise VLLMValidationError(
                f"{name} is not possible here: the slide's placeholder has no probability. Leave it out.",
                parameter=name,
            )
