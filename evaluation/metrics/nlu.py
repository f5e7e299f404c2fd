"""BLEU, ROUGE and METEOR of a pair as two papers compute them. Their numbers differ on the same pairs: never mix them.

wsi_llava   nltk's tokens, BLEU with smoothing method 4, ROUGE-L of unique words, METEOR (XinhengLyu/WSI-LLaVA)
mllm_hwsi   tokens by white space, BLEU with smoothing method 1, ROUGE-1/2/L with stems, METEOR (BasitAlawode/HWSI-MLLM)

Equal to the published code on pairs that it can compute, with two differences: missing data raises instead of giving 0,
and a long answer is computed instead of ending the run with a RecursionError.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from evaluation.metrics.language_data import tokens_of, wordnet
from evaluation.metrics.rouge_words import rouge_l_words

Scores = dict[str, float]
_BLEU: Final = tuple((f"BLEU-{n}", tuple([1.0 / n] * n + [0.0] * (4 - n))) for n in range(1, 5))


def wsi_llava(truth: str, answer: str) -> Scores:
    """BLEU-1…4, ROUGE-L, METEOR; shares 0 … 1. An answer without a token scores 0.

    Raises:
        MissingLanguageData: WordNet or punkt_tab is not installed.
    """
    reference, tokens = tokens_of(truth.strip()), tokens_of(answer.strip())
    scores = _bleu(reference, tokens, "method4")
    scores["ROUGE-L"] = rouge_l_words(" ".join(reference), " ".join(tokens))
    scores["METEOR"] = _meteor(reference, tokens)
    return scores


def mllm_hwsi(truth: str, answer: str) -> Scores:
    """ROUGE-1/2/L, BLEU-1…4, METEOR; shares 0 … 1. An answer without a token scores 0.

    Raises:
        MissingLanguageData: WordNet is not installed.
    """
    reference, tokens = truth.split(), answer.split()
    found = _rouge_scorer().score(" ".join(reference), " ".join(tokens))
    scores = {f"ROUGE-{name}": float(found[f"rouge{name}"].fmeasure) for name in ("1", "2", "L")}
    scores.update(_bleu(reference, tokens, "method1"))
    scores["METEOR"] = _meteor(reference, tokens)
    return scores


NLU: Final[dict[str, Callable[[str, str], Scores]]] = {"wsi_llava": wsi_llava, "mllm_hwsi": mllm_hwsi}
METRICS: Final[dict[str, tuple[str, ...]]] = {
    "wsi_llava": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "METEOR"),
    "mllm_hwsi": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L", "METEOR"),
}


def _bleu(reference: Sequence[str], tokens: Sequence[str], smoothing: str) -> Scores:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if not reference or not tokens:
        return dict.fromkeys((name for name, _ in _BLEU), 0.0)
    smooth = getattr(SmoothingFunction(), smoothing)
    scores = {
        name: float(sentence_bleu([reference], tokens, weights=weights, smoothing_function=smooth))
        for name, weights in _BLEU
    }
    assert all(math.isfinite(score) for score in scores.values()), "BLEU is a share"
    return scores


def _meteor(reference: Sequence[str], tokens: Sequence[str]) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(reference, tokens, wordnet=wordnet()))


def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
