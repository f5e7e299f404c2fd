"""What a model was given of a slide: its regions, patches and cells, read from the file of levels region by region.

Our own worker wrote the file; whatever was uploaded was parsed in a sandboxed child before (docs/decisions/0046). It is
read in threads, and as much of it at a time as one region has.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from encoders.errors import StoredFileDamaged
from encoders.hierarchical.cell_outlines import cell_polygons
from encoders.hierarchical.levels_reader import LevelsReader
from server.asking.served_models import ServedModel, ServedModels
from server.embeddings.cache import EmbeddingCache
from server.errors import NoLevels, NotFound, SlideFailed, SlideNotReady
from server.slides.levels_geojson import area_feature, cell_features, counted
from server.slides.public_levels import MEANING, box_of, cell_of, counts_of
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore

LevelsFormat = Literal["json", "geojson"]
_NOT_READY_RETRY_S = 5


@dataclass(frozen=True)
class ShowLevels:
    """Shows the levels of slides of all tenants; `turns` is how many regions are made into JSON at once."""

    store: SlideStore
    embeddings: EmbeddingCache
    models: ServedModels
    turns: asyncio.Semaphore

    def require_levels(self, record: SlideRecord) -> ServedModel:
        """The model that sees the record, which has levels.

        Raises:
            NoLevels: it is given tiles.
        """
        model = self.models.named(record.model or None)
        if model.manifest.reads == "levels":
            return model
        others = [other.name for other in self.models if other.manifest.reads == "levels"]
        advice = f"ask for {', '.join(others)}" if others else "no model of this server has levels"
        raise NoLevels(f"The model {model.name} is given tiles, not levels; {advice}.")

    async def version(self, record: SlideRecord) -> str:
        """Changes whenever the file of levels is written anew.

        Raises:
            SlideNotReady: it is not written yet.
            SlideFailed: it will not be.
            NotFound: nobody has asked for it, or the slide's embedding was given without levels.
        """
        stored = await self.store.describe(record.paths.features(record.encoder_id))
        if stored is not None:
            return stored.version
        if await self.embeddings.exists(record):
            raise NotFound("This slide was given as slide features; nobody knows its levels.")
        if record.error is not None:
            raise SlideFailed(f"The slide could not be encoded ({record.error.code}): {record.error.detail}")
        if not record.wanted:
            raise NotFound(
                f"The slide was not encoded for {record.model}; begin with POST /v1/slides/{{id}}/encode and "
                f'{{"encoder": "{record.model}"}}.'
            )
        raise SlideNotReady(
            "The slide is still being encoded; follow its events or ask again shortly.",
            retry_after_s=_NOT_READY_RETRY_S,
        )

    async def open(
        self, record: SlideRecord, region: int | None, kind: LevelsFormat, held: AsyncExitStack
    ) -> AsyncIterator[bytes]:
        """The levels as one JSON document, in pieces; `held` is to be closed when it was read or left.

        Raises:
            NotFound: the slide was deleted, or has no such region.
            StoredFileDamaged: nothing of the file can be shown, or it is another slide's or model's.
        """
        try:
            path = await held.enter_async_context(self.store.local_file(record.paths.features(record.encoder_id)))
            reader = await asyncio.to_thread(LevelsReader(path).__enter__)
        except FileNotFoundError as error:
            raise NotFound("The slide was deleted meanwhile.") from error
        held.callback(reader.__exit__)
        if (reader.slide_id, reader.encoder_id) != (record.id, record.encoder_id):
            raise StoredFileDamaged("The stored levels are another slide's; delete the slide and upload it again.")
        count = len(reader.region_coords)
        if region is not None and region >= count:
            raise NotFound(f"The slide has no region {region}; it has {count}, from 0 to {count - 1}.")
        document = _Document(self.require_levels(record).name, reader, self.turns)
        wanted = range(count) if region is None else range(region, region + 1)
        return document.geojson(wanted) if kind == "geojson" else document.json(wanted, with_cells=region is not None)


@dataclass(frozen=True)
class _Document:
    """The levels of a file, as a model's."""

    model: str
    levels: LevelsReader
    turns: asyncio.Semaphore

    async def json(self, regions: range, *, with_cells: bool) -> AsyncIterator[bytes]:
        """SlideLevels."""
        levels, counts = self.levels, self.levels.cell_counts
        head = {
            "object": "slide.levels",
            **self._names(),
            "width": levels.level0_width,
            "height": levels.level0_height,
            "region_px": levels.region_px,
            "patch_px": levels.patch_px,
            "region_count": len(levels.region_coords),
            "cell_counts": None if counts is None else counts_of(counts.sum(axis=(0, 1))),
        }
        yield orjson.dumps(head)[:-1] + b',"regions":['
        for region in regions:
            async with self.turns:
                shown = await asyncio.to_thread(self._region, region, with_cells)
            yield shown + (b"," if region < regions[-1] else b"")
        yield b"]}"

    async def geojson(self, regions: range) -> AsyncIterator[bytes]:
        """LevelsGeoJson."""
        yield orjson.dumps({"type": "FeatureCollection", **self._names()})[:-1] + b',"features":['
        for region in regions:
            async with self.turns:
                features = await asyncio.to_thread(self._features, region)
            yield features + (b"," if region < regions[-1] else b"")
        yield b"]}"

    def _names(self) -> dict[str, str]:
        levels = self.levels
        return {
            "meaning": MEANING,
            "slide_id": levels.slide_id,
            "model": self.model,
            "encoder_id": levels.encoder_id,
        }

    def _region(self, region: int, with_cells: bool) -> bytes:
        """A LevelRegion."""
        levels, counts = self.levels, self.levels.cell_counts
        cells = self._cells(region) if with_cells and counts is not None else None
        patches = [
            {
                "rank": rank + 1,
                "box": box_of(corner, levels.patch_px),
                "cell_counts": None if counts is None else counts_of(counts[region, rank]),
                "cells": None if cells is None else cells[rank],
            }
            for rank, corner in enumerate(levels.patch_coords[region])
        ]
        shown = {
            "index": region,
            "box": box_of(levels.region_coords[region], levels.region_px),
            "cell_counts": None if counts is None else counts_of(counts[region].sum(axis=0)),
            "patches": patches,
        }
        return orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY)

    def _cells(self, region: int) -> list[list[Any]]:
        """LevelCells of each patch of a region."""
        chosen = self.levels.patch_coords.shape[1]
        found = self.levels.cells_of(region * chosen, (region + 1) * chosen)
        polygons = cell_polygons(found.outline, found.outline_start)
        of_patch: list[list[Any]] = [[] for _ in range(chosen)]
        for patch, kind, centroid, polygon in zip(
            found.patch.tolist(), found.kind.tolist(), found.centroid, polygons, strict=True
        ):
            of_patch[patch - region * chosen].append(cell_of(kind, centroid, polygon))
        return of_patch

    def _features(self, region: int) -> bytes:
        """GeoFeatures of a region, its patches and their cells, with commas between."""
        return orjson.dumps(list(self._features_of(region)), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]

    def _features_of(self, region: int) -> Iterator[dict[str, Any]]:
        levels, counts = self.levels, self.levels.cell_counts
        total = None if counts is None else counts[region].sum(axis=0)
        yield area_feature(
            f"region {region}", levels.region_coords[region], levels.region_px, counted(region, total), is_region=True
        )
        chosen = levels.patch_coords.shape[1]
        for rank, corner in enumerate(levels.patch_coords[region]):
            numbers = counted(region, None if counts is None else counts[region, rank], rank + 1)
            name = f"region {region}, rank {rank + 1}"
            yield area_feature(name, corner, levels.patch_px, numbers, is_region=False)
        if counts is not None:
            found = levels.cells_of(region * chosen, (region + 1) * chosen)
            yield from cell_features(found.kind, cell_polygons(found.outline, found.outline_start))
