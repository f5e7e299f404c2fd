"""`eyepiece tenants retention`: what would go, for people and for scripts."""

import json
from datetime import UTC, datetime

import pytest

from server.commands.retention import show_due
from server.settings import Settings
from server.slides.due_slides import DueSlide, DueSlides

OLD = DueSlide("a" * 64, datetime(2024, 1, 2, tzinfo=UTC), 1_500_000_000)
NEW = DueSlide("b" * 64, datetime(2025, 3, 4, tzinfo=UTC), 500_000_000)


async def two_tenants(settings: Settings) -> list[DueSlides]:
    return [DueSlides("lab-a", settings.retain_days, (NEW, OLD)), DueSlides("lab-b", 9, ())]


async def nobody(settings: Settings) -> list[DueSlides]:
    return []


def test_a_line_a_tenant_says_how_much_would_go(capsys: pytest.CaptureFixture[str]) -> None:
    show_due(Settings(retain_days=365), two_tenants, as_json=False)

    assert capsys.readouterr().out.splitlines() == [
        "lab-a: kept 365 days, 2 slides of 2.000 GB would go, uploaded 2024-01-02 to 2025-03-04",
        "lab-b: kept 9 days, nothing would go",
    ]


def test_scripts_get_the_slides(capsys: pytest.CaptureFixture[str]) -> None:
    show_due(Settings(retain_days=365), two_tenants, as_json=True)

    first, second = json.loads(capsys.readouterr().out)["tenants"]
    assert (first["tenant"], first["days"], first["bytes"]) == ("lab-a", 365, 2_000_000_000)
    assert [it["id"] for it in first["slides"]] == [NEW.id, OLD.id]
    assert second["slides"] == []


def test_where_everything_is_kept_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_due(Settings(), nobody, as_json=False)

    assert "kept for ever" in capsys.readouterr().out
