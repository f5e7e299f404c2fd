"""Plans an examination: the questions, the slides, and what each group of them shows. Pure: nobody is asked here.

as is             every question of a slide, each in a conversation of its own: the reference for all others
unseen wordings   the same topics in words that training never saw
follow-up         the questions of "as is" again, as later turns of conversations about mixed topics
another slide     slide i's questions put to slide j. A question travels as text beside a slide's embedding, so this is
                  exactly i's question with j's embedding in place of i's: who looks, now agrees with i by chance only
place             more questions about where the necrosis is, of slides that have some: the reference for the next
shuffled tiles    the same, and all others, of a slide whose tiles have changed places
blind             the questions of "as is", put to one slide of blank features: all that is left is the text
0.25 µm/px        the questions of "as is" of the same tissue as another scanner saves it
other stain       the questions of "as is" of the same tissue as another laboratory stains it
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Literal

import numpy as np

from evaluation.judge import Asked
from synthetic.questions.question import Question, letter_question, open_question, yes_no_question
from synthetic.questions.slide_questions import slide_questions
from synthetic.questions.topics import NECROSIS
from synthetic.questions.wordings import SEEN, UNSEEN
from synthetic.slide_truth import FIRST_TRAINING_SEED, SlideTruth, slide_truth

AS_IS: Final = "as is"
UNSEEN_WORDINGS: Final = "unseen wordings"
FOLLOW_UP: Final = "follow-up"
ANOTHER_SLIDE: Final = "another slide"
PLACE: Final = "place"
SHUFFLED: Final = "shuffled tiles"
BLIND: Final = "blind"
FINER: Final = "0.25 µm/px"
RESTAINED: Final = "other stain"

# How a slide is shown. The last two are made of the features that the server computed of a drawn one.
Variant = Literal["drawn", "finer", "restained", "shuffled", "blank"]
MADE_OF_FEATURES: Final[tuple[Variant, ...]] = ("shuffled", "blank")

# Far from the seeds that people type, and at no time a training seed.
FIRST_SEED: Final = 2_000_000_000
TURNS: Final = 4


@dataclass(frozen=True)
class Specimen:
    """A slide to ask about."""

    seed: int
    variant: Variant = "drawn"


@dataclass(frozen=True)
class Dialogue:
    """Questions put to a specimen in one conversation; `truth` is of the slide whose label counts.

    Only turns from `first_scored` on are judged; turns count from 1.
    """

    condition: str
    specimen: Specimen
    truth: SlideTruth
    questions: tuple[Question, ...]
    first_scored: int = 1

    def asked(self) -> Iterator[Asked]:
        """Every turn, as it is judged."""
        shown = slide_truth(self.specimen.seed)
        for turn, question in enumerate(self.questions, start=1):
            yield Asked(self.condition, question, self.truth, shown, turn)


@dataclass(frozen=True)
class ExamSize:
    """Slides in all, and of them, from the first on, in each of the dearer conditions."""

    slides: int
    unseen: int
    follow_up: int
    another: int
    shuffled: int
    blind: int
    finer: int
    restained: int


def full_size(slides: int) -> ExamSize:
    """At most 20 slides, or 600 questions, in each condition that is compared with "as is"."""
    some = min(slides, 20)
    return ExamSize(slides, slides, follow_up=some, another=some, shuffled=some, blind=some, finer=some, restained=some)


# As small as one condition that is half blind still shows (tests/evaluation/test_criteria.py).
SHORT_SIZE: Final = ExamSize(slides=12, unseen=6, follow_up=4, another=5, shuffled=2, blind=1, finer=1, restained=3)


def plan_exam(size: ExamSize, first_seed: int = FIRST_SEED) -> list[Dialogue]:
    """All dialogues of an examination of consecutive seeds, by condition; the same arguments give the same."""
    seeds = range(first_seed, first_seed + size.slides)
    if not 0 <= first_seed <= FIRST_TRAINING_SEED - size.slides:
        raise ValueError(f"seeds from {FIRST_TRAINING_SEED} on are for training")
    truths = [slide_truth(seed) for seed in seeds]
    return list(
        chain(
            _plain(AS_IS, truths),
            _unseen(truths[: size.unseen]),
            _follow_ups(truths[: size.follow_up]),
            _another_slide(truths[: size.another]),
            _shuffled(list(islice((truth for truth in truths if truth.necrosis), size.shuffled))),
            _plain(BLIND, truths[: size.blind], blank_of=first_seed),
            _plain(FINER, truths[: size.finer], "finer"),
            _plain(RESTAINED, truths[: size.restained], "restained"),
        )
    )


def specimens_of(dialogues: Iterable[Dialogue]) -> list[Specimen]:
    """Every specimen once, drawn ones before those that are made of their features."""
    unique = dict.fromkeys(dialogue.specimen for dialogue in dialogues)
    return sorted(unique, key=lambda specimen: specimen.variant in MADE_OF_FEATURES)


def _plain(
    condition: str, truths: Sequence[SlideTruth], variant: Variant = "drawn", blank_of: int | None = None
) -> Iterator[Dialogue]:
    for truth in truths:
        specimen = Specimen(truth.seed, variant) if blank_of is None else Specimen(blank_of, "blank")
        yield from _single(condition, specimen, truth, slide_questions(truth, SEEN))


def _unseen(truths: Sequence[SlideTruth]) -> Iterator[Dialogue]:
    for truth in truths:
        yield from _single(UNSEEN_WORDINGS, Specimen(truth.seed), truth, slide_questions(truth, UNSEEN))


def _follow_ups(truths: Sequence[SlideTruth]) -> Iterator[Dialogue]:
    for truth in truths:
        questions = slide_questions(truth, SEEN)
        order = np.random.default_rng([truth.seed, 2]).permutation(len(questions))
        for first in range(0, len(order), TURNS):
            turns = tuple(questions[index] for index in order[first : first + TURNS])
            yield Dialogue(FOLLOW_UP, Specimen(truth.seed), truth, turns, first_scored=2)


def _another_slide(truths: Sequence[SlideTruth]) -> Iterator[Dialogue]:
    """Seeds follow each other, truths do not: the next slide is one at random."""
    for truth, other in zip(truths, [*truths[1:], *truths[:1]], strict=True):
        questions = [question for question in slide_questions(truth, SEEN) if question.topic != "never drawn"]
        yield from _single(ANOTHER_SLIDE, Specimen(other.seed), truth, questions)


def _shuffled(truths: Sequence[SlideTruth]) -> Iterator[Dialogue]:
    for truth in truths:
        places = place_questions(truth)
        others = [question for question in slide_questions(truth, SEEN) if question.topic != NECROSIS.name]
        yield from _single(PLACE, Specimen(truth.seed), truth, places)
        yield from _single(SHUFFLED, Specimen(truth.seed, "shuffled"), truth, [*places, *others])


def place_questions(truth: SlideTruth) -> list[Question]:
    """Where the necrosis is, in each form."""
    rng = np.random.default_rng([truth.seed, 3])
    return [
        *(letter_question(NECROSIS, truth, SEEN, rng) for _ in range(2)),
        *(yes_no_question(NECROSIS, truth, SEEN, rng) for _ in range(2)),
        *(open_question(NECROSIS, truth, SEEN, rng) for _ in range(3)),
    ]


def _single(condition: str, specimen: Specimen, truth: SlideTruth, questions: Iterable[Question]) -> Iterator[Dialogue]:
    return (Dialogue(condition, specimen, truth, (question,)) for question in questions)
