"""A small identity provider: discovery and keys over real HTTP on loopback, and tokens that it really signs."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

AUDIENCE = "eyepiece"


@cache  # a tenth of a second each
def rsa_key(owner: str, key_id: str = "first") -> RSAKey:
    """A key of somebody's."""
    return RSAKey.generate_key(2048, parameters={"kid": key_id, "use": "sig", "alg": "RS256"})


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class IdentityProvider:
    """Signs with `key`; shows the public halves of `shown`, and counts how often it was asked."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.key: RSAKey | ECKey = rsa_key(self.issuer)
        self.shown: list[Any] = [self.key.as_dict(private=False)]
        self.asked = 0
        self.is_down = False

    def settings(self, **changes: Any) -> dict[str, Any]:
        """As the operator would describe it."""
        return {"issuer": self.issuer, "audience": AUDIENCE, "tenant_claim": "tenant", **changes}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token; a change to None leaves a claim out."""
        usual = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "dr-jansen",
            "exp": int(time.time()) + 600,
            "iat": int(time.time()),
            "tenant": "a",
            "scope": "openid slides:read slides:write ask reports admin",
        }
        return {name: value for name, value in (usual | changes).items() if value is not None}

    def token(self, *, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        """A signed token with these claims."""
        named = {"alg": "RS256", "kid": "first"} | (header or {})
        signed_with = key or self.key
        return jwt.encode(named, self.claims(**changes), signed_with, algorithms=[named["alg"]])

    def rotate(self, key_id: str) -> None:
        """From now on tokens are signed with another key."""
        self.key = rsa_key(self.issuer, key_id)
        self.shown = [self.key.as_dict(private=False)]

    def signed_with_its_public_key(self) -> str:
        """HS256 with the public key's text as the secret: what libraries fell for that took the token's word for the
        algorithm."""
        parts = [_encoded({"alg": "HS256", "kid": "first"}), _encoded(self.claims())]
        signature = hmac.digest(self.key.as_pem(private=False), ".".join(parts).encode(), "sha256")
        return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])

    def answer(self, path: str) -> dict[str, Any] | None:
        self.asked += path == "/keys"
        if self.is_down:
            return None
        return {
            "/.well-known/openid-configuration": {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"},
            "/keys": {"keys": self.shown},
        }.get(path)


@contextmanager
def running_provider() -> Iterator[IdentityProvider]:
    """A provider on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = provider.answer(self.path)
            self.send_response(503 if content is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(content or {}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider = IdentityProvider(server.server_address[1])
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield provider
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
