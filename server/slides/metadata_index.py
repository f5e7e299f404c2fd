"""Where slides are found by what is said of them (`server.uploads.slide_metadata`), newest first.

    index/described/<tenant>/<HMAC-SHA256 of field and value>/<5 digits>/<2 digits>/<6 digits>-<slide id>
    tenants/<tenant>/metadata-key    32 random bytes

The entries are those of `server.slides.slide_index`, by its rule: one may be too many, never one too few. Values are in
no key: numbers of accessions are few enough to try them all against a plain digest, so whoever sees names of objects
alone must not have the key. It goes when the tenant is erased.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from server.slides.slide_index import ENTRY_PATTERN, entry_of, folded, index_entry, index_path
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore, require_tenant_name

_KEY_BYTES = 32
# A field of `SlideMetadata`, and a text of it.
Said = tuple[str, str]


class MetadataIndex:
    """Of all tenants. Whoever adds or takes an entry holds the slide's lock (`SlideCatalogue.lock`)."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    async def add(self, record: SlideRecord, said: Iterable[Said]) -> None:
        """The slide is found by these from now on."""
        for folder in await self._folders(record.tenant, said):
            await self._store.put(f"{folder}/{index_path(entry_of(record))}", b"")

    async def take(self, tenant: str, entry: str, said: Iterable[Said]) -> None:
        """The slide of an entry is found by these no more."""
        for folder in await self._folders(tenant, said):
            await self._store.discard(f"{folder}/{index_path(entry)}")

    async def entries(self, tenant: str, said: Said, after: str, most: int) -> list[str]:
        """Up to `most` entries of slides of which this is said, newest first, behind the entry `after` ("" for the
        newest)."""
        (folder,) = await self._folders(tenant, [said])
        found = await self._store.keys_after(folder, index_path(after) if after else "", most)
        return [entry for entry in map(index_entry, found) if ENTRY_PATTERN.fullmatch(entry)]

    async def _folders(self, tenant: str, said: Iterable[Said]) -> list[str]:
        wanted = list(said)
        if not wanted:
            return []
        key = await self._key(tenant)
        return [f"index/described/{tenant}/{_digest(key, *it)}" for it in wanted]

    async def _key(self, tenant: str) -> bytes:
        """Not remembered: a tenant that is erased and comes back has another."""
        name = f"tenants/{require_tenant_name(tenant)}/metadata-key"
        key = await self._store.get(name)
        if key is None:
            await self._store.create(name, secrets.token_bytes(_KEY_BYTES))
            key = await self._store.get(name)
        assert key is not None, "it was created"
        return key


def says(record: SlideRecord, said: Said) -> bool:
    """Whether this is said of the slide; upper and lower case are the same."""
    field, value = said
    return any(it == field and folded(text) == folded(value) for it, text in record.metadata.values)


def _digest(key: bytes, field: str, value: str) -> str:
    return hmac.digest(key, f"{field}\n{folded(value)}".encode(), hashlib.sha256).hex()
