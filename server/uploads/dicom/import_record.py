"""What is kept of an import: a series that is pulled from an archive, and what became of it.

    tenants/<tenant>/imports/<import id>.json

The id follows from archive, study and series: who asks for the same again gets the same import. The UIDs are in no key.
"""

import asyncio
import hashlib
import re
from datetime import UTC, datetime
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from server.storage.slide_store import SlideStore, require_tenant_name

log = structlog.get_logger(__name__)
IMPORT_ID_PATTERN = re.compile(r"[0-9a-f]{32}")
# Of the store, for one list.
_READS_AT_ONCE = 16
ImportStatus = Literal["queued", "running", "done", "incomplete", "failed"]
OPEN_STATUSES: tuple[ImportStatus, ...] = ("queued", "running")


class ImportFailure(BaseModel):
    """Why an import failed, or did not go on at the last attempt: a stable code and a sentence."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class ImportRecord(BaseModel):
    """An import. `done` of `total` instances have come, `size_bytes` with them; `total` is None before the archive was
    asked. While it is `queued` again, `error` says why it did not go on."""

    model_config = ConfigDict(frozen=True)

    format_version: int = 1
    id: str
    tenant: str
    archive: str
    study: str
    series: str
    status: ImportStatus = "queued"
    attempts: int = 0
    done: int = 0
    total: int | None = None
    size_bytes: int = 0
    missing: tuple[str, ...] = ()
    slide_id: str | None = None
    error: ImportFailure | None = None
    created_at: datetime
    changed_at: datetime

    @property
    def is_open(self) -> bool:
        """Whether it goes on by itself."""
        return self.status in OPEN_STATUSES

    def changed(self, **changes: object) -> "ImportRecord":
        """The record as it is from now on."""
        return self.model_copy(update={"changed_at": datetime.now(UTC), **changes})


def import_id_of(archive: str, study: str, series: str) -> str:
    """The id of the import of a series."""
    return hashlib.sha256("\n".join((archive, study, series)).encode()).hexdigest()[:32]


def new_import(tenant: str, archive: str, study: str, series: str) -> ImportRecord:
    """An import that nobody has begun with."""
    moment = datetime.now(UTC)
    return ImportRecord(
        id=import_id_of(archive, study, series),
        tenant=tenant,
        archive=archive,
        study=study,
        series=series,
        created_at=moment,
        changed_at=moment,
    )


class ImportShelf:
    """Imports of all tenants."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    async def keep(self, record: ImportRecord) -> None:
        """Write the record, in place of an older one."""
        await self._store.put(_key(record.tenant, record.id), record.model_dump_json().encode())

    async def find(self, tenant: str, import_id: str) -> ImportRecord | None:
        """The record; None when there is none that can be read."""
        if not IMPORT_ID_PATTERN.fullmatch(import_id):
            return None
        content = await self._store.get(_key(tenant, import_id))
        try:
            return None if content is None else ImportRecord.model_validate_json(content)
        except ValidationError:
            log.warning("import_record_unreadable")
            return None

    async def all(self, tenant: str) -> list[ImportRecord]:
        """All that can be read."""
        turns = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(name: str) -> ImportRecord | None:
            async with turns:
                return await self.find(tenant, name.removesuffix(".json"))

        found = await asyncio.gather(*[read(name) for name in await self._store.objects(_folder(tenant))])
        return [it for it in found if it is not None]

    async def count(self, tenant: str) -> int:
        """How many there are, open or over; none is read."""
        return len(await self._store.objects(_folder(tenant)))

    async def remove(self, record: ImportRecord) -> None:
        """Forget an import."""
        await self._store.discard(_key(record.tenant, record.id))


def _folder(tenant: str) -> str:
    return f"tenants/{require_tenant_name(tenant)}/imports"


def _key(tenant: str, import_id: str) -> str:
    return f"{_folder(tenant)}/{import_id}.json"
