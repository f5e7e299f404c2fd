"""What is printed, and what scripts get."""

import json

from simulated_answers import blind, judged, seeing

from evaluation.criteria import FULL, check
from evaluation.exam import AS_IS, full_size, plan_exam
from evaluation.table import CONDITIONS, table_document, table_text

PLAN = plan_exam(full_size(4))
SEEN = judged(PLAN, seeing)
BLIND = judged(PLAN, blind)


def test_every_topic_has_a_line_and_every_condition_a_column() -> None:
    text = table_text(SEEN, check(SEEN, FULL))

    for name in ("grade", "location of necrosis", "prognosis", "never drawn", "all", "best constant"):
        assert any(line.startswith(name) for line in text.splitlines()), name
    headers = " ".join(line for line in text.splitlines() if line.startswith(" "))
    for word in " ".join(CONDITIONS).split():
        assert word in headers
    assert max(map(len, text.splitlines())) <= 120
    assert "✗ at least 60 slides: 4" in text


def test_the_document_has_baselines_of_its_own_in_every_row() -> None:
    document = json.loads(json.dumps(table_document(BLIND, check(BLIND, FULL))))

    rows = [row for row in document["results"] if row["condition"] == AS_IS and row["topic"] == "grade"]
    assert {row["kind"] for row in rows} == {"closed", "open", "report"}
    for row in rows:
        assert 0 <= row["right"] <= row["asked"]
        assert 0 < row["constant"] <= 1
        assert row["chance"] == 1
        assert row["unreadable"] == 0
    assert sum(row["asked"] for row in document["results"]) == len(BLIND)
    assert [line["met"] for line in document["criteria"]] == [line.is_met for line in check(BLIND, FULL)]
