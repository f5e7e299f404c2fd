"""Somebody asks for slides that are DICOM series, by their UIDs or by what their headers say (QIDO-RS and WADO-RS)."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from encoders.errors import SlideError
from server.errors import NotFound
from server.slides.catalogue import SlideCatalogue
from server.slides.instance_search import FoundItem, InstanceQuery, search
from server.slides.instance_shelf import InstanceShelf, StoredInstance, StoredSeries
from server.slides.series_index import SeriesIndex
from server.slides.slide_record import SlideRecord
from server.slides.usage import Usage
from server.storage.slide_store import SlidePaths, SlideStore
from server.uploads.dicom.described_instances import DescribedInstance, describe_instances
from server.uploads.one_slide import SourceFile
from server.uploads.slide_inspection import SlideInspector
from server.uploads.slide_source import local_source

log = structlog.get_logger(__name__)
# Of the store, for one search.
_READS_AT_ONCE = 16


@dataclass(frozen=True)
class FoundSlide:
    """A slide, and the instances that it is made of."""

    record: SlideRecord
    series: StoredSeries

    def file_key(self, instance: StoredInstance) -> str:
        """Where in the store an instance's file is."""
        paths = self.record.paths
        return paths.source if self.record.entry is None else paths.source_file(instance.sha256)

    def instance(self, uid: str) -> StoredInstance:
        """One of them.

        Raises:
            NotFound: it is none of them.
        """
        for it in self.series.instances:
            if it.sop_instance == uid:
                return it
        raise NotFound("The slide of this series has no instance of this UID; labels and overviews are not kept.")


@dataclass(frozen=True)
class FindInstances:
    """Finds DICOM slides of all tenants. A search without a series' UID reads two small objects of each slide."""

    store: SlideStore
    slides: SlideCatalogue
    index: SeriesIndex
    shelf: InstanceShelf
    usage: Usage
    inspector: SlideInspector

    async def search(self, tenant: str, query: InstanceQuery) -> list[FoundItem]:
        """All that match, in the order of their UIDs.

        Raises:
            InvalidRequest: a filter cannot be read.
        """
        if query.only_series is None or query.level == "study":  # whose counts are of all its series
            found = await self._all(tenant)
        else:
            one = await self._of_uid(tenant, query.only_series)
            found = [] if one is None else [one.series]
        return search([it for it in found if it.instances], query)

    async def of_study(self, tenant: str, study: str) -> list[FoundSlide]:
        """The slides of a study, in the order of their UIDs.

        Raises:
            NotFound: there is none.
        """
        series = sorted(it.series for it in await self._all(tenant) if it.study == study and it.instances)
        found = [it for it in [await self._of_uid(tenant, uid) for uid in series] if it is not None]
        if not found:
            raise NotFound("There is no slide of this study; GET /v1/dicomweb/waiting says what is not complete.")
        return found

    async def of_series(self, tenant: str, study: str, series: str) -> FoundSlide:
        """The slide that is this series.

        Raises:
            NotFound: there is none in this study, or nobody can say what its instances are; the sentence says why.
        """
        found = await self._of_uid(tenant, series)
        if found is None or found.series.study != study:
            raise NotFound("There is no slide of this series in this study.")
        if found.series.failure is not None:
            raise NotFound(f"The slide is there, its instances cannot be given: {found.series.failure.detail}")
        return found

    async def _all(self, tenant: str) -> list[StoredSeries]:
        turns = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(slide_id: str) -> StoredSeries | None:
            async with turns:
                if (known := await self.shelf.series(SlidePaths(tenant, slide_id))) is not None:
                    return known
                found = await self._of_slide(tenant, slide_id)
                return None if found is None else found.series

        found = await asyncio.gather(*[read(slide_id) for slide_id in await self.index.slides(tenant)])
        return [it for it in found if it is not None]

    async def _of_uid(self, tenant: str, series: str) -> FoundSlide | None:
        slide_id = await self.index.slide_of(tenant, series)
        return None if slide_id is None else await self._of_slide(tenant, slide_id)

    async def _of_slide(self, tenant: str, slide_id: str) -> FoundSlide | None:
        record = await self.slides.look(tenant, slide_id)
        if not isinstance(record, SlideRecord) or record.series_uid is None:
            return None
        known = await self.shelf.series(record.paths)
        if known is None:
            known = await self._described(record, record.series_uid)
        return None if known is None else FoundSlide(record, known)

    async def _described(self, record: SlideRecord, series: str) -> StoredSeries | None:
        """Look at a slide whose upload died before its headers were read; None when it is gone.

        Raises:
            ReaderDied, Overloaded: nobody could look now.
        """
        folder = self.store.new_staging_path()
        found: Sequence[DescribedInstance] | SlideError
        try:
            async with local_source(self.store, record.paths, record.entry) as source:
                files = [SourceFile(path, sha256, path.stat().st_size, sha256) for path, sha256 in source.digests]
                found = await describe_instances(record.tenant, series, files, folder, self.inspector)
        except SlideError as error:
            found = error
        except FileNotFoundError:
            return None
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        async with self.slides.lock(record.tenant, record.id):
            if await self.slides.look(record.tenant, record.id) is None:
                return None
            await self.usage.count_stored(record.tenant, await self.shelf.keep(record, found))
        log.info("instances_described", slide=record.id[:12])
        return await self.shelf.series(record.paths)
