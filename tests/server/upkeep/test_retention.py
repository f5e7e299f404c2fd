"""Slides go when their time is over, no sooner, and the audit log says so."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from api_parts import stored_slide
from fastapi import FastAPI

from server.api.parts import Parts
from server.app import build_retention
from server.errors import AuditUnavailable
from server.identity.audit_chain import read_line
from server.identity.audit_log import AuditLog
from server.slides.slide_record import SlideRecord, now


async def uploaded(parts: Parts, name: str, days_ago: float, tenant: str = "default", **more: Any) -> SlideRecord:
    moment = now() - timedelta(days=days_ago)
    return await stored_slide(parts, name, tenant=tenant, ready=True, created_at=moment, **more)


async def kept(parts: Parts, *records: SlideRecord) -> list[bool]:
    return [await parts.slides.find(it.tenant, it.id) is not None for it in records]


@pytest.fixture
def parts_that_expire(make_app: Callable[..., FastAPI], tmp_path: Path) -> Parts:
    parts: Parts = make_app(
        retain_days=30, tenant_retain_days={"short": 1, "ever": 0}, audit_dir=tmp_path / "audit"
    ).state.parts
    return parts


async def test_slides_go_when_the_days_of_their_tenant_are_over(parts_that_expire: Parts, tmp_path: Path) -> None:
    parts = parts_that_expire
    slides = [
        await uploaded(parts, "old", 30.01),
        await uploaded(parts, "older", 900),
        await uploaded(parts, "new", 29.99),
        await uploaded(parts, "a", 2, "short"),
        await uploaded(parts, "b", 0.9, "short"),
        await uploaded(parts, "c", 10_000, "ever"),
    ]

    assert await build_retention(parts).round() == 3

    assert await kept(parts, *slides) == [False, False, True, False, True, True]
    assert await parts.store.keys_after(slides[0].paths.folder, "", 9) == []
    assert await build_retention(parts).round() == 0
    lines = [
        read_line(it) for path in (tmp_path / "audit").glob("*.jsonl") for it in path.read_bytes().splitlines(True)
    ]
    told = [it.said for it in lines if it is not None and it.action == "slide expires"]
    assert [it["phase"] for it in told] == ["begun", "done"] * 3
    assert {it["slide"] for it in told} == {slides[0].id, slides[1].id, slides[3].id}
    assert all(it["erased"]["bytes"] > 0 and it["outcome"] == 200 for it in told if it["phase"] == "done")


async def test_what_would_go_is_what_goes_and_saying_so_deletes_nothing(parts_that_expire: Parts) -> None:
    parts = parts_that_expire
    slides = [
        await uploaded(parts, "old", 31),
        await uploaded(parts, "older", 900),
        await uploaded(parts, "new", 29),
        await uploaded(parts, "b", 0.9, "short"),
        await uploaded(parts, "c", 10_000, "ever"),
    ]

    due = {it.tenant: it for it in await build_retention(parts).due()}

    assert {tenant: it.days for tenant, it in due.items()} == {"default": 30, "short": 1}
    assert [it.id for it in due["default"].slides] == [slides[0].id, slides[1].id]
    assert all(it.size_bytes > 0 for it in due["default"].slides)
    assert due["short"].slides == ()
    assert await kept(parts, *slides) == [True] * 5
    assert await build_retention(parts).round() == 2
    assert [it.slides for it in await build_retention(parts).due()] == [(), ()]


async def test_without_a_setting_everything_is_kept(parts: Parts) -> None:
    slide = await uploaded(parts, "old", 10_000)

    assert await build_retention(parts).round() == 0

    assert await kept(parts, slide) == [True]


async def test_a_slide_that_was_uploaded_again_has_its_own_time(parts_that_expire: Parts) -> None:
    parts = parts_that_expire
    slide = await uploaded(parts, "a", 1)
    await parts.slides.index.add("all", slide.model_copy(update={"created_at": now() - timedelta(days=90)}))

    assert await build_retention(parts).round() == 0

    assert await kept(parts, slide) == [True]


async def test_nothing_goes_that_cannot_be_told(parts_that_expire: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_that_expire
    slide, other = await uploaded(parts, "a", 90), await uploaded(parts, "b", 90, "short")

    async def full(*_: object) -> int:
        raise AuditUnavailable("The disk is full.")

    monkeypatch.setattr(AuditLog, "write", full)

    assert await build_retention(parts).round() == 0
    assert await kept(parts, slide, other) == [True, True]


async def test_more_slides_than_are_listed_at_once_go_in_one_round(
    parts_that_expire: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.flow.expire_slides._ENTRIES_AT_ONCE", 2)
    for number in range(5):
        await uploaded(parts_that_expire, str(number), 40 + number)

    assert await build_retention(parts_that_expire).round() == 5
