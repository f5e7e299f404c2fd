"""The door to nltk and its data. Data that is missing is an error: the published code would give 0 without a word."""

import hashlib
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from evaluation.errors import MissingLanguageData

if TYPE_CHECKING:
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

_HOW: Final = (
    "run `make language-data`, or where nltk's server is reached `python -m nltk.downloader wordnet punkt_tab`"
)
_PUNKT_FILES: Final = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


def tokens_of(text: str) -> list[str]:
    """The tokens of nltk's `word_tokenize`, English.

    Raises:
        MissingLanguageData: punkt_tab is not installed.
    """
    nltk = _nltk()
    _folder("tokenizers/punkt_tab/english")
    return list(nltk.word_tokenize(text))


@cache
def wordnet() -> "WordNetCorpusReader":
    """WordNet, for METEOR's synonyms.

    Raises:
        MissingLanguageData: it is not installed.
    """
    _nltk()
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no other languages
        return WordNetCorpusReader(str(_folder("corpora/wordnet")), None)


@cache
def language_data_record() -> dict[str, str]:
    """Versions and hashes of what the text metrics rest on, for the record of a run.

    Raises:
        MissingLanguageData: it is not installed.
    """
    return {
        "nltk": str(_nltk().__version__),
        "wordnet": _hash(_folder("corpora/wordnet"), ("data.noun", "data.verb", "data.adj", "data.adv")),
        "punkt_tab": _hash(_folder("tokenizers/punkt_tab/english"), _PUNKT_FILES),
    }


def _nltk() -> Any:
    try:
        import nltk
    except ImportError as error:
        raise MissingLanguageData("The text metrics need nltk: install Eyepiece with the extra `eval`.") from error
    return nltk


@cache
def _folder(resource: str) -> Path:
    import nltk

    try:
        return Path(nltk.data.find(resource))
    except LookupError as error:
        raise MissingLanguageData(f"The text metrics need nltk's data `{resource}`: {_HOW}.") from error


def _hash(folder: Path, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]
