"""The two kinds of credentials, side by side: API keys, and tokens of identity providers where there are any."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.identity.api_keys import KeyRing
from server.identity.oidc_provider import OidcProvider
from server.storage.slide_store import SlideStore

if TYPE_CHECKING:
    from server.identity.oidc import TokenVerifier


@dataclass(frozen=True)
class Credentials:
    """What callers are told apart by; `tokens` of None: no identity provider is configured."""

    keys: KeyRing
    tokens: "TokenVerifier | None"

    async def aclose(self) -> None:
        """Finish what goes on in the background."""
        await self.keys.uses.aclose()
        if self.tokens is not None:
            await self.tokens.aclose()


def open_credentials(store: SlideStore, providers: Sequence[OidcProvider]) -> Credentials:
    """Over the keys of the store, and the providers of the settings."""
    if not providers:
        return Credentials(KeyRing(store), None)
    # A server without identity providers needs no library for signatures.
    from server.identity.oidc import TokenVerifier

    return Credentials(KeyRing(store), TokenVerifier(providers))
