"""The matching of QIDO-RS."""

import pytest

from server.errors import InvalidRequest
from server.slides.instance_search import InstanceQuery, search
from server.slides.instance_shelf import StoredInstance, StoredSeries


def series(study: str, uid: str, *instances: str, **attributes: object) -> StoredSeries:
    """Of a patient; the attributes are values by keyword."""
    tags = {
        "name": ("00100010", "PN"),
        "date": ("00080020", "DA"),
        "time": ("00080030", "TM"),
        "rows": ("00280010", "US"),
    }
    given = {tags[name][0]: {"vr": tags[name][1], "Value": [value]} for name, value in attributes.items()}

    def instance(own: str) -> StoredInstance:
        uids = {"0020000D": study, "0020000E": uid, "00080018": own}
        said = {tag: {"vr": "UI", "Value": [value]} for tag, value in uids.items()}
        return StoredInstance(
            sop_class="1.2",
            sop_instance=own,
            transfer_syntax="1.2.840.10008.1.2.1",
            sha256="0" * 64,
            size_bytes=1,
            frame_count=1,
            has_metadata=True,
            attributes={**said, **given, "00080060": {"vr": "CS", "Value": ["SM"]}},
        )

    return StoredSeries(study=study, series=uid, instances=tuple(map(instance, instances)))


SLIDES = (
    series("2", "2.1", "2.1.1", name={"Alphabetic": "Roe^Jane", "Ideographic": "鹿^珍"}, date="20261130", rows=256),
    series("1", "1.2", "1.2.2", "1.2.1", name={"Alphabetic": "Doe^John"}, date="20260101", time="101500", rows=512),
    series("1", "1.1", "1.1.1", name={"Alphabetic": "Doe^John"}, date="20260101", time="235959.5", rows=256),
)


@pytest.mark.parametrize(
    ("filters", "uids"),
    [
        ({}, ["1.1.1", "1.2.1", "1.2.2", "2.1.1"]),
        ({"00100010": ""}, ["1.1.1", "1.2.1", "1.2.2", "2.1.1"]),
        ({"00100010": "doe*"}, ["1.1.1", "1.2.1", "1.2.2"]),
        ({"00100010": "doe"}, []),
        ({"00100010": "?oe^J*"}, ["1.1.1", "1.2.1", "1.2.2", "2.1.1"]),
        ({"00100010": "鹿^珍"}, ["2.1.1"]),
        ({"00100010": "[a-z]*"}, []),
        ({"00080020": "20260101"}, ["1.1.1", "1.2.1", "1.2.2"]),
        ({"00080020": "-20260630"}, ["1.1.1", "1.2.1", "1.2.2"]),
        ({"00080020": "20260630-"}, ["2.1.1"]),
        ({"00080020": "20260101-20261130"}, ["1.1.1", "1.2.1", "1.2.2", "2.1.1"]),
        ({"00080030": "1000-1015"}, ["1.2.1", "1.2.2"]),
        ({"00080030": "2300-"}, ["1.1.1"]),
        ({"00080018": "1.1.1,2.1.1"}, ["1.1.1", "2.1.1"]),
        ({"0020000E": "1.1\\2.1"}, ["1.1.1", "2.1.1"]),
        ({"00280010": "512"}, ["1.2.1", "1.2.2"]),
        ({"00280010": "256", "0020000D": "1"}, ["1.1.1"]),
        ({"00080061": "SM"}, ["1.1.1", "1.2.1", "1.2.2", "2.1.1"]),
        ({"00080061": "CT"}, []),
        ({"00080060": "S*"}, ["1.1.1", "1.2.1", "1.2.2", "2.1.1"]),
    ],
)
def test_instances_match_all_filters(filters: dict[str, str], uids: list[str]) -> None:
    found = search(SLIDES, InstanceQuery("instance", filters))

    assert [it.uids[-1] for it in found] == uids


def test_a_study_counts_all_that_it_has_whatever_matched() -> None:
    (study,) = search(SLIDES, InstanceQuery("study", {"00280010": "512"}))
    by_series = search(SLIDES, InstanceQuery("series", {}, study="1"))

    assert study.uids == ("1",)
    assert (study.attributes["00201206"]["Value"], study.attributes["00201208"]["Value"]) == ([2], [3])
    assert study.attributes["00080061"]["Value"] == ["SM"]
    assert "00280010" not in study.attributes
    assert [(it.uids, it.attributes["00201209"]["Value"]) for it in by_series] == [
        (("1", "1.1"), [1]),
        (("1", "1.2"), [2]),
    ]


@pytest.mark.parametrize(
    ("filters", "only"),
    [({"0020000E": "1.2"}, "1.2"), ({"0020000E": "1.2,1.3"}, None), ({"0020000E": ""}, None), ({}, None)],
)
def test_one_series_is_looked_up_instead_of_all(filters: dict[str, str], only: str | None) -> None:
    assert InstanceQuery("series", filters).only_series == only


@pytest.mark.parametrize("filters", [{"00080020": "2026-01-01"}, {"00080020": "today"}, {"00280010": "2.5"}])
def test_what_is_no_date_or_number_is_refused(filters: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        search(SLIDES, InstanceQuery("instance", filters))
