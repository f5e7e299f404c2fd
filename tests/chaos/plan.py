"""Who is killed when: drawn from a seed before anything runs. Times are progress of slides, never seconds."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Victim = Literal["worker", "reader", "redis", "vllm"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)
# Of the kills of a long run; vLLM takes a minute to come back.
_SHARES = {"worker": 0.36, "reader": 0.30, "redis": 0.20, "vllm": 0.14}
# Most while tiles are encoded; some before there is a plan, some when only the slide encoder is left.
_STAGES = ("tile", "encode_tiles", "encode_tiles", "encode_tiles", "encode_slide")
# The slide encoder is too quick for progress that is sent to us; who wants to hit it lies in wait from here on.
_AMBUSH_SHARE = 0.4


@dataclass(frozen=True)
class Kill:
    """Kill `victim` when slide number `slide` reports `stage` with at least `share` of it done."""

    victim: Victim
    slide: int
    stage: str
    share: float

    @property
    def is_ambush(self) -> bool:
        """Whether the worker is to be hit in the slide encoder."""
        return self.victim == "worker" and self.stage == "encode_slide"

    def is_due(self, stage: str, done: int, total: int) -> bool:
        """Whether this progress of the slide is the moment, or that to lie in wait."""
        if self.is_ambush:
            return stage == "encode_tiles" and done >= _AMBUSH_SHARE * total
        return stage == self.stage and done >= self.share * total


def shared_out(kills: int) -> Counter[Victim]:
    """So many kills, every victim among them.

    Raises:
        ValueError: fewer kills than kinds of victims.
    """
    if kills < len(VICTIMS):
        raise ValueError(f"{len(VICTIMS)} kinds of victims need as many kills")
    counts = Counter({victim: max(1, int(_SHARES[victim] * kills)) for victim in VICTIMS})
    for victim in VICTIMS * 2:
        if counts.total() < kills:
            counts[victim] += 1
    while counts.total() > kills:
        counts.subtract([counts.most_common(1)[0][0]])
    return counts


def kill_plan(seed: int, slides: int, victims: Counter[Victim]) -> list[Kill]:
    """At most one planned kill a slide, in order of slides. The same arguments give the same plan.

    Raises:
        ValueError: more kills than slides.
    """
    drawn = random.Random(seed)
    order: Sequence[Victim] = drawn.sample(sorted(victims.elements()), victims.total())
    chosen = sorted(drawn.sample(range(slides), len(order)))
    return [_kill(drawn, victim, slide) for victim, slide in zip(order, chosen, strict=True)]


def _kill(drawn: random.Random, victim: Victim, slide: int) -> Kill:
    stage = drawn.choice(_STAGES)
    share = round(drawn.uniform(0.05, 0.7), 2) if stage == "encode_tiles" else 0.0
    return Kill(victim, slide, stage, share)
