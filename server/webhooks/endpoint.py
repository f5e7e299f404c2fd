"""A receiver of webhooks, as EYEPIECE_WEBHOOKS describes it."""

import base64
import binascii
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from server.trusted_ca import CaFile

# What can be told. A name is offered when something sends it, and no sooner.
EventType = Literal["slide.ready", "slide.failed", "report.ready"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
_BEGIN = "whsec_"
# What Standard Webhooks asks of a secret's random bytes.
_SECRET_BYTES = range(24, 65)

Network = IPv4Network | IPv6Network


class WebhookEndpoint(BaseModel):
    """Where the events of one tenant go, how they are signed, and which addresses may be connected to.

    An address in public use may be. Any other, which is one of this machine or network, only where `networks` holds it
    or `url` spells it.
    """

    # A secret that is mistyped would otherwise be quoted in the error.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    tenant: str = Field(min_length=1, max_length=64)
    url: str
    secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=2)
    events: tuple[EventType, ...] = Field(EVENT_TYPES, min_length=1)
    networks: tuple[Network, ...] = ()
    ca_file: CaFile = None

    @field_validator("url")
    @classmethod
    def _whole_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.fragment:
            raise ValueError("must be an https:// address")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a password; what is sent is signed")
        _ = parts.port  # raises ValueError where it is none
        return url

    @field_validator("secrets")
    @classmethod
    def _long_enough(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in secrets:
            if len(_secret_bytes(secret)) not in _SECRET_BYTES:
                raise ValueError(f"must be {_BEGIN} and 24 to 64 random bytes in base64")
        return secrets

    @model_validator(mode="after")
    def _plain_only_nearby(self) -> "WebhookEndpoint":
        if urlsplit(self.url).scheme == "http" and not self.own_networks:
            raise ValueError("http:// needs `networks` with the receiver's address in it; use https:// beyond them")
        return self

    @property
    def host(self) -> str:
        """The host in its address, an IPv6 address without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def own_networks(self) -> tuple[Network, ...]:
        """Networks that may be connected to though they are not public: those that the operator named, one way or the
        other."""
        try:
            return (*self.networks, ip_network(ip_address(self.host)))
        except ValueError:
            return self.networks

    @property
    def keys(self) -> tuple[bytes, ...]:
        """What signs; each of two while one takes the other's place."""
        return tuple(_secret_bytes(secret) for secret in self.secrets)


def _secret_bytes(secret: SecretStr) -> bytes:
    """Empty where it is none."""
    begin, sign, encoded = secret.get_secret_value().partition(_BEGIN)
    if begin or not sign:
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return b""
