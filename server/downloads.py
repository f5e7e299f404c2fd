"""A download that holds its tenant's slot until it ends, whether it was read to its end or not."""

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.slots import TenantSlots

# What waits for a slow reader: as much as this in the connection's buffer, and a piece on its way.
PIECE_BYTES = 64 * 1024


class Download(StreamingResponse):
    """Streams `content`; raises Overloaded at once when the tenant may have no more downloads."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        slots: TenantSlots,
        tenant: str,
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._held = ExitStack()
        self._held.enter_context(slots.one(tenant))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream, then free."""
        with self._held:
            await super().__call__(scope, receive, send)
