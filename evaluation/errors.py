"""Errors of an evaluation. Each is one sentence that says what to do; `server.commands` shows it as it stands.

EvaluationError
├── UnreadableSet          a file of questions, predictions or paraphrases
├── MissingLanguageData    WordNet or punkt_tab, without which a metric would be 0 without a word
├── RunMismatch            a folder of another run
└── TargetError            the model or the judge cannot be asked at all
"""


class EvaluationError(Exception):
    """The evaluation cannot go on."""


class UnreadableSet(EvaluationError):
    """A file is not of the layout that it is read as, or a row is not whole."""


class MissingLanguageData(EvaluationError):
    """Data of a text metric is not installed."""


class RunMismatch(EvaluationError):
    """The folder holds a run of other questions or other settings."""


class TargetError(EvaluationError):
    """A model or a judge refuses every question: wrong key, wrong name, wrong address."""
