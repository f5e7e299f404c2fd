"""Pairs from the truth of drawn slides: no person and no judge has a part in them."""

from collections.abc import Iterator, Sequence

import numpy as np

from synthetic.questions.honesty import HonestPair, honest_pair, region_pair
from synthetic.slide_truth import SlideTruth
from training.preference.pairs import Message, PreferencePair, assistant, user

ORIGIN = "truth"
# As the ordinary stage's conversations have at most 8 turns, earlier ones and the one that is asked.
_MOST_EARLIER = 7


def pairs_from_truth(
    slides: Sequence[tuple[str, SlideTruth]],
    regions: Sequence[tuple[str, str, SlideTruth]],
    count: int,
    region_share: float,
    seed: int,
) -> Iterator[PreferencePair]:
    """`count` of them, in training's wordings. `slides` by name; `regions` by their slide's and their own name, with a
    truth that says of necrosis what holds of the region. Regions with and without are asked about equally often."""
    rng = np.random.default_rng([seed, 23])
    having = [region for region in regions if region[2].necrosis is not None]
    others = [region for region in regions if region[2].necrosis is None]
    for _ in range(count):
        some = having if rng.random() < 0.5 else others
        if some and rng.random() < region_share:
            slide, name, truth = some[int(rng.integers(len(some)))]
            yield _pair(region_pair(truth, "seen", rng), slide, name)
        else:
            name, truth = slides[int(rng.integers(len(slides)))]
            yield _pair(_distinct(truth, rng), name, None)


def shuffled(pairs: Sequence[PreferencePair], seed: int) -> list[PreferencePair]:
    """A random half of the pairs the wrong way round: the arm that shows what the preferences themselves do."""
    rng = np.random.default_rng([seed, 29])
    return [_turned(pair) if rng.random() < 0.5 else pair for pair in pairs]


def _distinct(truth: SlideTruth, rng: np.random.Generator) -> HonestPair:
    while True:
        pair = honest_pair(truth, "seen", rng, _MOST_EARLIER)
        # An invented finding may be the very sentence that a question for it wants.
        if pair.question.answer != pair.rejected:
            return pair


def _pair(pair: HonestPair, slide: str, region: str | None) -> PreferencePair:
    messages: list[Message] = []
    for question in pair.earlier:
        messages += [user(question.text), assistant(question.answer)]
    return PreferencePair(
        messages=(*messages, user(pair.question.text)),
        slide=slide,
        region=region,
        chosen=pair.question.answer,
        rejected=pair.rejected,
        origin=f"{ORIGIN}: {pair.question.topic}",
    )


def _turned(pair: PreferencePair) -> PreferencePair:
    return pair.model_copy(
        update={"chosen": pair.rejected, "rejected": pair.chosen, "origin": f"{pair.origin}, turned round"}
    )
