"""What the examinations ask, in whatever letters and marks: training asks none of it."""

from collections.abc import Iterator
from functools import cache

from synthetic.questions.findings import FINDINGS
from synthetic.questions.other_languages import LANGUAGES, UNSEEN_LANGUAGES
from synthetic.questions.topics import NECROSIS, NOTHING, TOPICS
from synthetic.questions.unanswerable import UNANSWERABLE, UNSEEN_TOPICS
from synthetic.questions.wordings import GROUPS, NECROSIS_NAMES, NEVER_DRAWN, UNSEEN


def plain(text: str) -> str:
    """Its letters and digits alone, small."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


@cache
def examined_texts() -> frozenset[str]:
    """All of it, as `plain` gives it. Greetings are not among them, and of letter questions only what stands before
    the options: either is short, and what is asked in training may begin or end with it."""
    return frozenset(plain(text) for text in (*_findings(), *_wordings(), *_declined()))


def _findings() -> Iterator[str]:
    for finding in FINDINGS:
        yield from (*finding.unseen, *finding.negated_unseen)


def _wordings() -> Iterator[str]:
    yield from UNSEEN.report
    for topic in TOPICS:
        phrases = [
            f"in the {phrase}" if topic is NECROSIS and value != NOTHING else phrase
            for value, phrase in topic.phrases.items()
        ]
        yield from (text.format(noun=noun) for text in (*UNSEEN.free, *UNSEEN.choice) for noun in topic.nouns)
        yield from (
            text.format(judged=judged, phrase=phrase)
            for text in UNSEEN.yes_no
            for judged in topic.judged
            for phrase in phrases
        )
    for text in (*UNSEEN.presence, *UNSEEN.absence, *UNSEEN.place):
        yield from (text.format(finding=finding) for finding in (*NECROSIS_NAMES, *NEVER_DRAWN))
    for text in UNSEEN.summary:
        yield from (text.format(group=group) for groups in GROUPS.values() for group in groups)


def _declined() -> Iterator[str]:
    for kept in (*UNANSWERABLE.values(), *LANGUAGES.values()):
        yield from kept.unseen
    for texts in (*UNSEEN_TOPICS.values(), *UNSEEN_LANGUAGES.values()):
        yield from texts
