"""An identity provider (OpenID Connect) whose tokens are taken, as EYEPIECE_OIDC_PROVIDERS describes it."""

from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from server.identity.access_scopes import AccessScope, scopes_among

# Signatures whose keys are public. HMAC's are not among them: a public key must never be taken for a shared secret.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class OidcProvider(BaseModel):
    """Which tokens of one issuer are taken, and what their claims mean here.

    A claim's name may be a path with dots (`realm_access.roles`). Its value is a text, whose words count one by one
    where several are meant, or a list of texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str
    audience: str = Field(min_length=1)
    jwks_url: str = ""
    algorithms: tuple[Algorithm, ...] = Field(("RS256",), min_length=1)
    tenant: str = ""
    tenant_claim: str = ""
    tenants: dict[str, str] = {}
    scope_claim: str = "scope"
    scopes: dict[str, tuple[AccessScope, ...]] = {}
    leeway_s: int = Field(30, ge=0, le=300)

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _reached_safely(cls, url: str) -> str:
        """Whoever can change what comes from there can sign tokens."""
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        if url and not (is_safe and parts.hostname):
            raise ValueError("must be an https:// address")
        return url

    @model_validator(mode="after")
    def _whole(self) -> "OidcProvider":
        if not self.issuer:
            raise ValueError("an identity provider needs its `issuer`")
        if bool(self.tenant) == bool(self.tenant_claim):
            raise ValueError("name either `tenant` or `tenant_claim`")
        if self.tenants and not self.tenant_claim:
            raise ValueError("`tenants` says what values of `tenant_claim` mean; name that")
        return self

    def tenant_of(self, claims: dict[str, Any]) -> str | None:
        """The name of the token's tenant, not checked for its form; None when it has none."""
        if self.tenant:
            return self.tenant
        values = _values(claims, self.tenant_claim, split=False)
        if self.tenants:
            values = [self.tenants[value] for value in values if value in self.tenants]
        # A token for two tenants would get whichever comes first.
        return values[0] if len(set(values)) == 1 else None

    def scopes_of(self, claims: dict[str, Any]) -> frozenset[AccessScope]:
        """What the token allows: its values that are scopes, or what `scopes` makes of them."""
        values = _values(claims, self.scope_claim, split=True)
        if not self.scopes:
            return scopes_among(values)
        return frozenset(scope for value in values for scope in self.scopes.get(value, ()))


def _values(claims: dict[str, Any], name: str, *, split: bool) -> list[str]:
    """The texts in a claim."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for step in name.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, str):
        return found.split() if split else [found]
    return [value for value in found if isinstance(value, str)] if isinstance(found, list) else []
