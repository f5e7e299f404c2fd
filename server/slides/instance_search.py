"""Searching DICOM slides: PS3.18, 10.6 and 8.3.4 (QIDO-RS), with the matching of PS3.4, C.2.2.2.

A filter is a single value, `*` and `?` in texts, a list of UIDs with commas, or a range of dates or times. A study or
series matches when one of its instances matches all filters.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from encoders.dicom.searched_attributes import SEARCHED_ATTRIBUTES, AttributeLevel, SearchedAttribute
from server.errors import InvalidRequest
from server.slides.instance_shelf import StoredInstance, StoredSeries

STUDY, SERIES, INSTANCE, MODALITY = "0020000D", "0020000E", "00080018", "00080060"
# Not in a file: counted, or of all series of a study.
MODALITIES_IN_STUDY, STUDY_SERIES, STUDY_INSTANCES = "00080061", "00201206", "00201208"
SERIES_INSTANCES = "00201209"
AVAILABLE_SYNTAX = "00083002"
_BY_TAG = {it.tag: it for it in SEARCHED_ATTRIBUTES}
_RANGE = re.compile(r"([0-9.]{0,16})-([0-9.]{0,16})")
_ORDER: dict[AttributeLevel, int] = {"study": 0, "series": 1, "instance": 2}
Attribute = Mapping[str, Any]
_Row = Mapping[str, Attribute]


@dataclass(frozen=True)
class InstanceQuery:
    """What is searched for: `filters` are values by tag, all of which must match; `level`, what an answer is one of."""

    level: AttributeLevel
    filters: Mapping[str, str]
    study: str | None = None
    series: str | None = None

    @property
    def only_series(self) -> str | None:
        """The one series that can match, where the query says it."""
        asked = self.series or self.filters.get(SERIES, "")
        return asked if asked and not set(",\\*?") & set(asked) else None


@dataclass(frozen=True)
class FoundItem:
    """A study, series or instance: its UIDs from the study's on, and its attributes by tag in DICOM JSON."""

    uids: tuple[str, ...]
    attributes: _Row


def search(slides: Sequence[StoredSeries], query: InstanceQuery) -> list[FoundItem]:
    """What matches among a tenant's slides, in the order of the UIDs.

    Raises:
        InvalidRequest: a filter cannot be read.
    """
    matches = [_matcher(tag, value) for tag, value in query.filters.items() if value]
    ordered = sorted(slides, key=lambda it: (it.study, it.series))
    of_study = [it for it in ordered if query.study in (None, it.study) and query.series in (None, it.series)]
    chosen = [(it, [row for row in map(_row, it.instances) if all(fits(row) for fits in matches)]) for it in of_study]
    chosen = [(it, rows) for it, rows in chosen if rows]
    if query.level == "study":
        return list(_studies(chosen, ordered))
    if query.level == "series":
        return [_series(it, rows[0]) for it, rows in chosen]
    items = [FoundItem((it.study, it.series, _first(row, INSTANCE)), row) for it, rows in chosen for row in rows]
    return sorted(items, key=lambda item: item.uids)


def _row(instance: StoredInstance) -> _Row:
    return {**instance.attributes, AVAILABLE_SYNTAX: _attribute("UI", instance.transfer_syntax)}


def _studies(
    chosen: Sequence[tuple[StoredSeries, Sequence[_Row]]], slides: Sequence[StoredSeries]
) -> Iterator[FoundItem]:
    for uid, of_study in groupby(chosen, key=lambda it: it[0].study):
        row = next(iter(of_study))[1][0]
        series = [it for it in slides if it.study == uid]
        modalities = sorted({_first(it.instances[0].attributes, MODALITY) for it in series})
        counts = {
            MODALITIES_IN_STUDY: _attribute("CS", *modalities),
            STUDY_SERIES: _attribute("IS", len(series)),
            STUDY_INSTANCES: _attribute("IS", sum(len(it.instances) for it in series)),
        }
        yield FoundItem((uid,), _down_to("study", row) | counts)


def _series(slide: StoredSeries, row: _Row) -> FoundItem:
    count = {SERIES_INSTANCES: _attribute("IS", len(slide.instances))}
    return FoundItem((slide.study, slide.series), _down_to("series", row) | count)


def _down_to(level: AttributeLevel, row: _Row) -> dict[str, Attribute]:
    return {tag: it for tag, it in row.items() if tag in _BY_TAG and _ORDER[_BY_TAG[tag].level] <= _ORDER[level]}


def _matcher(tag: str, wanted: str) -> Callable[[_Row], bool]:
    attribute = _BY_TAG[MODALITY if tag == MODALITIES_IN_STUDY else tag]
    fits = _fits(attribute, wanted)
    return lambda row: any(fits(text) for text in _texts(row.get(attribute.tag, {})))


def _fits(attribute: SearchedAttribute, wanted: str) -> Callable[[str], bool]:
    if attribute.vr == "UI":
        uids = set(re.split(r"[,\\]", wanted))
        return lambda text: text in uids
    if attribute.vr in ("DA", "TM"):
        return _within(attribute, wanted)
    if attribute.vr in ("IS", "US", "UL"):
        if not re.fullmatch(r"[+-]?[0-9]{1,12}", wanted.strip()):
            raise InvalidRequest(f"{attribute.keyword} is a whole number.")
        return lambda text: text.strip() == str(int(wanted))
    folds = attribute.vr == "PN"
    # Only these two are special: as everything else stands for itself, none of it can cost more than its length.
    parts = [".*" if it == "*" else "." if it == "?" else re.escape(it) for it in re.sub(r"\*+", "*", wanted.strip())]
    pattern = re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if folds else 0))
    return lambda text: pattern.fullmatch(text.strip()) is not None


def _within(attribute: SearchedAttribute, wanted: str) -> Callable[[str], bool]:
    if match := _RANGE.fullmatch(wanted):
        first, last = match.groups()
        if first or last:
            return lambda text: (not first or text >= first) and (not last or text[: len(last)] <= last)
    if not re.fullmatch(r"[0-9.]{1,16}", wanted):
        raise InvalidRequest(f"{attribute.keyword} is digits, or a range of two with a hyphen between.")
    return lambda text: text == wanted


def _texts(attribute: Attribute) -> Iterator[str]:
    """Each value as texts; of a name every way in which it is written."""
    for value in attribute.get("Value", ()):
        if isinstance(value, dict):
            yield from value.values()
        elif value is not None:
            yield str(value)


def _first(row: _Row, tag: str) -> str:
    return next(_texts(row.get(tag, {})), "")


def _attribute(vr: str, *values: Any) -> Attribute:
    kept = [value for value in values if value != ""]
    return {"vr": vr, "Value": kept} if kept else {"vr": vr}
