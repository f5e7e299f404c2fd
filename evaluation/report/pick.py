"""Looks up numbers of a scored run, and the condition that is the honest zero of a model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from evaluation.asking.conditions import AS_IS, BLANK, NO_SLIDE, PARAPHRASED, WRONG, WRONG_SAME
from evaluation.metrics.nlu import METRICS
from evaluation.scoring.baselines import CONSTANT, LONGEST, SAME_PROJECT
from evaluation.scoring.rows import EXACT, LABEL_MATCH, READ

Number = Mapping[str, Any]
CONDITION_ORDER: Final = (AS_IS, PARAPHRASED, NO_SLIDE, BLANK, WRONG, WRONG_SAME)
# What is plotted and printed, as far as a run has it; all other numbers are in the tables.
SHOWN_METRICS: Final = (READ, "WSI-Precision", "WSI-Relevance", "BLEU-1 (wsi_llava)", "ROUGE-L (wsi_llava)")
METRIC_TITLES: Final = {
    READ: "Closed questions: share read as right",
    EXACT: "Closed questions: share that is exactly the letter or word",
    "WSI-Precision": "Open questions: WSI-Precision (how much of the reference is said)",
    "WSI-Relevance": "Open questions: WSI-Relevance (how much of what is said stands in the reference)",
    LABEL_MATCH: "Typing: label match as MLLM-HWSI computes it",
    **{
        f"{name} ({paper})": f"Open questions: {name} as {paper} computes it"
        for paper, names in METRICS.items()
        for name in names
    },
}


class Numbers:
    """The lines of a results document by what they are of. `targets` are compared with each other, each of `ablated`
    with itself."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._lines: dict[tuple[str, str, str, str, str], Number] = {
            (line["target"], line["condition"], line["by"], line["group"], line["metric"]): line
            for line in document["numbers"]
        }
        ablated = [name for name, target in document["targets"].items() if target["record"].get("ablations")]
        self.targets: list[str] = [name for name in document["targets"] if name not in ablated]
        self.ablated: list[str] = ablated

    def find(self, target: str, condition: str, by: str, group: str, metric: str) -> Number | None:
        """One number; None where there is none."""
        return self._lines.get((target, condition, by, group, metric))

    def groups(self, by: str, metric: str) -> list[str]:
        """Groups of that kind that have the metric, in order of appearance."""
        return list(dict.fromkeys(key[3] for key in self._lines if key[2] == by and key[4] == metric))

    def metrics(self) -> list[str]:
        """All metrics there are."""
        return list(dict.fromkeys(key[4] for key in self._lines if key[4]))

    def conditions(self, target: str, metric: str) -> list[str]:
        """Conditions of a target that have the metric."""
        found = {key[1] for key in self._lines if key[0] == target and key[4] == metric}
        return [name for name in (*CONDITION_ORDER, CONSTANT, LONGEST, *sorted(found)) if name in found][: len(found)]


def free_baseline(metric: str) -> str:
    """What a model of this metric has to be above without having looked: by rows of the pseudo target "no model"."""
    return CONSTANT if metric in (READ, EXACT) else SAME_PROJECT


def shown_metrics(numbers: Numbers) -> Sequence[str]:
    """Those of `SHOWN_METRICS` that the run has."""
    there: Iterable[str] = numbers.metrics()
    return [metric for metric in SHOWN_METRICS if metric in there]
