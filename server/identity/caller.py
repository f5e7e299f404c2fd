"""The caller of a request: whoever holds an API key, a token of an identity provider, or this machine's keyboard."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from server.identity.access_scopes import ALL_SCOPES, AccessScope

DEFAULT_TENANT = "default"


@dataclass(frozen=True)
class Caller:
    """What a credential stands for.

    `name` is for the operator: the beginning of a key (`eyp_k3Yw9a`), issuer and subject of a token, or `keyless`.
    A subject may identify a person, so it goes to the audit log and nowhere else.
    """

    tenant: str
    scopes: frozenset[AccessScope]
    name: str

    @cached_property
    def digest(self) -> str:
        """Stands for the name where nobody shall read it: in keys of Redis."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:32]


KEYLESS = Caller(DEFAULT_TENANT, ALL_SCOPES, "keyless")
