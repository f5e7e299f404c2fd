"""What somebody at the page waits for: tiles, the first view, an answer's first token, that of a region, its evidence.

    python -m loadtests.page_view
    python -m loadtests.page_view --long --slide cmu-1-small-region.svs

A server is started here, with the demo model behind a real vLLM. The slide is drawn, 6,144 × 4,608 px with a pyramid,
and encoded before anything is measured; all requests go through HTTP, one at a time, but those of a first view, which
are six at a time as the page makes them.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from benchmarks.write_results import table
from encoders.tiling.pictures.deep_zoom import DeepZoom
from loadtests.answer_streams import AnswerClient, Request
from loadtests.own_server import OwnServer, own_server
from loadtests.results_file import percentile, verdict, write_result
from synthetic.write_slide import write_sample_slide

WIDTH_PX, HEIGHT_PX = 6_144, 4_608
# What fills the window of a large screen, and how many tiles a page loads at a time (viewer.js).
_VIEW_PX, _AT_ONCE = 1_600, 6
_QUESTION = "Is there necrosis?"
_READY_WITHIN_S = 900.0


@dataclass(frozen=True)
class Waited:
    """Milliseconds of one kind of request, and the most that the target allows its `percent`th percentile."""

    what: str
    times_ms: list[float]
    percent: int
    most_ms: float

    @property
    def is_met(self) -> bool:
        """Whether it is within the target."""
        return self._at <= self.most_ms

    def row(self) -> tuple[str, ...]:
        """Of the table."""
        three = (median(self.times_ms), percentile(self.times_ms, 95), percentile(self.times_ms, 99))
        judged = "median" if self.percent == 50 else f"p{self.percent}"
        target = f"{judged} ≤ {self.most_ms:,.0f}, {verdict(self.is_met)}"
        return (self.what, str(len(self.times_ms)), *(f"{it:,.1f}" for it in three), target)

    @property
    def _at(self) -> float:
        return median(self.times_ms) if self.percent == 50 else percentile(self.times_ms, self.percent)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        slide_path = options.slide or _drawn_slide(Path(folder))
        with own_server(Path(folder, "data"), "demo") as server:
            found = asyncio.run(_measure(server, slide_path, options))
    print(report(found))
    print(f"\n{write_result('page_view', {'slide': slide_path.name, 'waited': [asdict(it) for it in found]})}")


def report(found: Sequence[Waited]) -> str:
    """The table."""
    return table(("waited for", "number", "median ms", "p95 ms", "p99 ms", "target"), [it.row() for it in found])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="in place of the drawn one; at least 1,024 px a side")
    parser.add_argument("--long", action="store_true", help="four times as many of everything")
    return parser


def _drawn_slide(folder: Path) -> Path:
    path = folder / "viewed.svs"
    write_sample_slide(path, seed=101, width_px=WIDTH_PX, height_px=HEIGHT_PX)
    return path


async def _measure(server: OwnServer, path: Path, options: argparse.Namespace) -> list[Waited]:
    times = 4 if options.long else 1
    async with httpx.AsyncClient(base_url=server.api_url, timeout=120.0, trust_env=False) as client:
        slide = await _uploaded(client, path)
        pyramid = DeepZoom(slide["width"], slide["height"])
        first_view = await _first_view(client, slide, pyramid)
        tiles = [await _tile_ms(client, at) for at in _random_tiles(slide, pyramid, 300 * times)]
        ask = AnswerClient()
        asked = [await _first_token_ms(server, ask, slide, None) for _ in range(20 * times)]
        boxes = list(_random_boxes(slide, 8 * times))
        new = [await _first_token_ms(server, ask, slide, box) for box in boxes]
        again = [await _first_token_ms(server, ask, slide, box) for box in boxes]
        await ask.close()
        evidence = [await _evidence_ms(client, slide) for _ in range(times)]
    return [
        Waited("first view of 1,600 px", [first_view], 50, 1_500),
        Waited("a tile, warm", tiles, 95, 50),
        Waited("first token, slide cached", asked[1:], 95, 300),
        Waited("first token, a new region", new, 50, 1_000),
        Waited("first token, the region again", again, 95, 300),
        Waited("evidence: the first cell", [it[0] for it in evidence], 50, 2_000),
        Waited("evidence: all cells", [it[1] for it in evidence], 50, 30_000),
    ]


async def _uploaded(client: httpx.AsyncClient, path: Path) -> dict[str, Any]:
    """The Slide, ready."""
    with path.open("rb") as file:
        answer = await client.post("/v1/slides", files={"file": (path.name, file)})
    until = time.monotonic() + _READY_WITHIN_S
    slide: dict[str, Any] = answer.raise_for_status().json()
    while slide["status"] != "ready":
        if slide["status"] == "failed" or time.monotonic() > until:
            raise SystemExit(f"The slide is {slide['status']}: {slide['error']}")
        await asyncio.sleep(0.5)
        slide = (await client.get(f"/v1/slides/{slide['id']}")).raise_for_status().json()
    return slide


async def _tile_ms(client: httpx.AsyncClient, address: str) -> float:
    """Until all of it is there."""
    begun = time.perf_counter()
    (await client.get(address)).raise_for_status()
    return 1000 * (time.perf_counter() - begun)


async def _first_view(client: httpx.AsyncClient, slide: dict[str, Any], pyramid: DeepZoom) -> float:
    """From the moment that the slide is opened until its window is full: the reader starts meanwhile."""
    level = next(
        (it for it in range(pyramid.level_count) if max(pyramid.size(it)) >= _VIEW_PX), pyramid.level_count - 1
    )
    columns, rows = pyramid.grid(level)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(column: int, row: int) -> None:
        async with slots:
            (await client.get(_address(slide, level, column, row))).raise_for_status()

    begun = time.perf_counter()
    await asyncio.gather(*(one(column, row) for column in range(columns) for row in range(rows)))
    return 1000 * (time.perf_counter() - begun)


def _random_tiles(slide: dict[str, Any], pyramid: DeepZoom, number: int) -> Iterator[str]:
    """Of all levels, the same ones in every run."""
    rng = np.random.default_rng(0)
    for level in rng.integers(8, pyramid.level_count, number).tolist():
        column, row = rng.integers(pyramid.grid(level)).tolist()
        yield _address(slide, level, column, row)


def _address(slide: dict[str, Any], level: int, column: int, row: int) -> str:
    return f"/v1/slides/{slide['id']}/tiles/{level}/{column}_{row}.jpg"


def _random_boxes(slide: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Half of the slide each way, never the same, and so never the same tiles."""
    rng = np.random.default_rng(1)
    width, height = slide["width"] // 2, slide["height"] // 2
    for x, y in zip(rng.integers(0, width, number).tolist(), rng.integers(0, height, number).tolist(), strict=True):
        yield {"rectangle": {"x": x, "y": y, "width": width, "height": height}}


async def _first_token_ms(server: OwnServer, client: AnswerClient, slide: dict[str, Any], region: Any) -> float:
    body = {"question": _QUESTION, **({"region": region} if region else {})}
    request = Request(f"{server.api_url}/v1/slides/{slide['id']}/questions", json.dumps(body).encode())
    return 1000 * (await client.ask(request)).first_text_s


async def _evidence_ms(client: httpx.AsyncClient, slide: dict[str, Any]) -> tuple[float, float]:
    """Until the first cell is measured, and until all are, of an answer in a conversation of its own."""
    asked = await client.post(f"/v1/slides/{slide['id']}/questions", json={"question": _QUESTION, "stream": False})
    turn = asked.raise_for_status().json()
    body = {"conversation_id": turn["conversation_id"], "turn": turn["turn"]}
    first_ms, begun = None, time.perf_counter()
    async with client.stream("POST", f"/v1/slides/{slide['id']}/evidence", json=body) as events:
        async for line in events.aiter_lines():
            if line == "event: cell" and first_ms is None:
                first_ms = 1000 * (time.perf_counter() - begun)
            if line == "event: error":
                raise SystemExit("The evidence broke off: see the server's log.")
    if first_ms is None:
        raise SystemExit("No cell of evidence came.")
    return first_ms, 1000 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
