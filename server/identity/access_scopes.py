"""Access scopes: what a credential allows. None of them includes another."""

from typing import Literal, get_args

AccessScope = Literal["slides:read", "slides:write", "ask", "reports", "admin"]
SCOPES: tuple[AccessScope, ...] = get_args(AccessScope)
ALL_SCOPES: frozenset[AccessScope] = frozenset(SCOPES)


def scopes_among(names: list[str]) -> frozenset[AccessScope]:
    """Those of the names that are scopes; an identity provider's own scopes mean nothing here."""
    return frozenset(scope for scope in SCOPES if scope in names)
