"""Answers about the drawn world by a truth that somebody has in mind: which one is the stand-in's whole skill."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from evaluation.benchmark.read_options import taken_apart
from evaluation.metrics.closed import LETTERS
from synthetic.questions.question import SUMMARIES, report, sentences
from synthetic.questions.topics import TOPICS, Topic
from synthetic.questions.wordings import GROUPS
from synthetic.slide_truth import SlideTruth

UNKNOWN: Final = "I cannot tell."


def topic_of(question: str) -> Topic | None:
    """The topic whose longest name stands in the question."""
    text = question.lower()
    named = [(len(noun), topic) for topic in TOPICS for noun in (*topic.nouns, *topic.judged) if noun in text]
    if named:
        return max(named, key=lambda pair: pair[0])[1]
    return next((topic for topic in TOPICS if topic.name.rpartition(" ")[2] in text), None)


def answer_by(truth: SlideTruth, question: str) -> str:
    """What somebody says who takes this for the truth."""
    taken = taken_apart(question)
    for task, groups in GROUPS.items():
        if not taken.options and any(group in question for group in groups):
            return sentences(SUMMARIES[task], truth)  # type: ignore[index]
    topic = topic_of(taken.stem)
    if topic is None:
        return report(truth) if "report" in question.lower() else UNKNOWN
    phrase = topic.phrase(truth)
    if taken.options:
        return next((letter for letter, text in zip(LETTERS, taken.options, strict=False) if text == phrase), "A")
    asked = question.lower()
    begins = asked.split(" ")[0] in ("is", "does", "do", "would", "can", "could", "here", "the", "i", "answer")
    if begins and any(other in asked for other in topic.phrases.values()):
        return "Yes" if phrase in asked else "No"
    return topic.answer(truth)


def most_common(truths: Sequence[SlideTruth]) -> SlideTruth:
    """The truth of a slide that nobody looked at: of each attribute the most common value."""
    fields = ("pattern", "grade", "mitoses", "lymphocytes", "stroma", "extent", "necrosis")
    common = {name: Counter(getattr(truth, name) for truth in truths).most_common(1)[0][0] for name in fields}
    return SlideTruth(seed=0, tumour_fraction=0.5, **common)
