"""How far a judge agrees with itself when asked again, and what became of its judgements."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import pstdev
from typing import Any

from evaluation.scoring.rows import Row


def reliability(rows: Mapping[tuple[str, str], Sequence[Row]]) -> dict[str, Any]:
    """By metric: judgements wanted, read and failed by reason; items on which all repeats agree; the mean of each
    repeat and their spread; the mean deviation within an item; the mean number of claims."""
    found: dict[str, Any] = {}
    every = [row for some in rows.values() for row in some]
    for metric in dict.fromkeys(name for row in every for name in row.repeats):
        judged = [row for row in every if metric in row.repeats]
        repeats = [row.repeats[metric] for row in judged]
        whole = [scores for scores in repeats if len(scores) > 1 and None not in scores]
        means = [_mean([scores[n] for scores in repeats if scores[n] is not None]) for n in range(len(repeats[0]))]
        known = [mean for mean in means if mean is not None]
        failures = Counter(row.values[metric].reason for row in judged if row.values[metric].value is None)
        found[metric] = {
            "items": len(judged),
            "judgements": sum(map(len, repeats)),
            "read": sum(score is not None for scores in repeats for score in scores),
            "items_unjudged": {str(reason): count for reason, count in sorted(failures.items(), key=str)},
            "items_with_all_repeats": len(whole),
            "items_on_which_all_repeats_agree": sum(all(a == b for a, b in pairwise(scores)) for scores in whole),
            "mean_deviation_within_an_item": _mean([pstdev([s for s in scores if s is not None]) for scores in whole]),
            "mean_of_each_repeat": means,
            "spread_of_these_means": max(known) - min(known) if known else None,
            "mean_claims": _mean([row.claims[metric] for row in judged if row.claims.get(metric)]),
        }
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return round(sum(numbers) / len(numbers), 6) if numbers else None
