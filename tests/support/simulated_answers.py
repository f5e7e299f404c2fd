"""Answers as a model would give that sees everything, or nothing, of the slide that it is shown."""

from collections.abc import Callable, Iterable

from evaluation.exam import Dialogue
from evaluation.judge import Asked, Judgement, judge, reported_topics
from synthetic.questions.question import LETTERS, sentences
from synthetic.questions.topics import TOPICS
from synthetic.slide_truth import SlideTruth

Answerer = Callable[[Asked], str]
TOPIC_OF = {topic.name: topic for topic in TOPICS}


def seeing(asked: Asked) -> str:
    """Right about the slide that is shown; the first letter where none of the options is."""
    question, shown = asked.question, asked.shown
    if question.topic == "never drawn":
        return question.answer
    if question.topic == "necrosis":
        swapped = (shown.necrosis is None) != (asked.truth.necrosis is None)
        return {"Yes": "No", "No": "Yes"}[question.answer] if swapped else question.answer
    if question.topic not in TOPIC_OF:
        return sentences(reported_topics(question), shown)
    return _about_topic(asked, TOPIC_OF[question.topic].phrase(shown))


def blind(asked: Asked) -> str:
    """The same to every slide: what is true of one without a tumour."""
    return seeing(Asked(asked.condition, asked.question, asked.truth, BENIGN, asked.turn))


def seeing_but_for_places(asked: Asked) -> str:
    """As one who sees tiles and does not know where they are: necrosis is always in one corner."""
    if asked.shown.necrosis is None:
        return seeing(asked)
    cornered = SlideTruth(**{**vars(asked.shown), "necrosis": "upper left"})
    return seeing(Asked(asked.condition, asked.question, asked.truth, cornered, asked.turn))


def judged(dialogues: Iterable[Dialogue], answerer: Answerer) -> list[Judgement]:
    """The judgements of an examination in which everything is answered so."""
    asked = [asked for dialogue in dialogues for asked in dialogue.asked() if asked.turn >= dialogue.first_scored]
    return [judgement for one in asked for judgement in judge(one, answerer(one))]


def _about_topic(asked: Asked, phrase: str) -> str:
    question, topic = asked.question, TOPIC_OF[asked.question.topic]
    if question.form == "letter":
        return LETTERS[question.options.index(phrase)] if phrase in question.options else "A"
    if question.form == "yes_no":
        return "Yes" if phrase in question.options else "No"
    return topic.answer(asked.shown)


BENIGN = SlideTruth(
    seed=0,
    pattern="benign",
    grade=None,
    mitoses="rare",
    lymphocytes="sparse",
    stroma="fibrous",
    extent="none",
    tumour_fraction=0.0,
    necrosis=None,
)
