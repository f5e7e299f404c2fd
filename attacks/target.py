"""The server under attack, spoken to over plain sockets, with a count of what may be done to it.

Nothing but a loopback address is ever connected to. No HTTP library: most attacks are what a library would not send.
"""

import asyncio
import ipaddress
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

_LARGEST_REPLY_BYTES = 64 * 2**20
_PIECE_BYTES = 256 * 1024
Headers = Mapping[str, str]
# (form field, file name, content)
FormFile = tuple[str, str, bytes]


class BudgetSpent(Exception):
    """An attack wanted more than it may have."""


@dataclass
class Budget:
    """What may still be sent. It ends a run that would go on for ever; no attack needs a tenth of it."""

    connections: int = 60_000
    bytes: int = 12 * 2**30
    ends_at: float = field(default_factory=lambda: time.monotonic() + 3600)

    def connect(self) -> None:
        """Count a connection."""
        self.connections -= 1
        self._check()

    def send(self, count: int) -> None:
        """Count bytes."""
        self.bytes -= count
        self._check()

    def _check(self) -> None:
        if self.connections < 0 or self.bytes < 0 or time.monotonic() > self.ends_at:
            raise BudgetSpent("the run's connections, bytes or minutes are used up")


@dataclass(frozen=True)
class Reply:
    """`status` is 0 when the connection ended without one. Header names are in lower case."""

    status: int
    headers: Headers
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:
        """The body, `{}` when it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def code(self) -> str:
        """The stable code of an error, in either envelope; the status where there is none."""
        body = self.json
        if isinstance(body, dict):
            body = body.get("error", body)
        found = body.get("code") if isinstance(body, dict) else None
        return str(found or self.status)


class Target:
    """Where the API listens; raises ValueError for anything but a loopback address."""

    def __init__(self, host: str, port: int, budget: Budget) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError("Attacks go to a loopback address only, to a server that they started themselves.")
        self.host, self.port, self.budget = host, port, budget

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Wire"]:
        """A connection, closed at the end."""
        wire = await self.connect()
        try:
            yield wire
        finally:
            wire.close()

    async def connect(self) -> "Wire":
        """A connection that the caller closes."""
        self.budget.connect()
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=2**20)
        return Wire(reader, writer, self.budget)

    async def send(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        headers: Headers | None = None,
        body: bytes = b"",
        timeout_s: float = 60.0,
    ) -> Reply:
        """One request on a connection of its own; a reply of status 0 when none came in time."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s), self.connection() as wire:
                # Read from the beginning: a server that has had enough replies, and resets what still comes.
                replied = asyncio.ensure_future(wire.reply(has_body=method != "HEAD"))
                try:
                    with suppress(ConnectionError):
                        await wire.write(request_head(method, path, key=key, headers=headers, body=body) + body)
                    status, found, content = await replied
                finally:
                    replied.cancel()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            return Reply(0, {}, b"", time.monotonic() - began)
        return Reply(status, found, content, time.monotonic() - began)

    async def get(self, path: str, key: str | None = None, **options: Any) -> Reply:
        """GET."""
        return await self.send("GET", path, key=key, **options)

    async def post(self, path: str, content: Any, key: str | None = None, **options: Any) -> Reply:
        """POST of JSON."""
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        body = json.dumps(content).encode()
        return await self.send("POST", path, key=key, headers=headers, body=body, **options)

    async def upload(self, files: Sequence[FormFile], key: str, path: str = "/v1/slides", **options: Any) -> Reply:
        """POST of a form, or PUT where the path is that of features."""
        body, content_type = form(files)
        method = "PUT" if path.endswith("/features") else "POST"
        return await self.send(method, path, key=key, headers={"Content-Type": content_type}, body=body, **options)

    async def upload_one(self, name: str, content: bytes, key: str, **options: Any) -> Reply:
        """A slide of one file."""
        return await self.upload([("file", name, content)], key, **options)

    async def ask(self, slide_id: str, key: str, **fields: Any) -> Reply:
        """A question, answered as one JSON object unless `stream` says otherwise."""
        timeout_s = fields.pop("timeout_s", 60.0)
        body = {"question": "What is this?", "stream": False, "max_tokens": 8, **fields}
        return await self.post(f"/v1/slides/{slide_id}/questions", body, key, timeout_s=timeout_s)

    async def wait_until_encoded(self, slide_id: str, key: str, within_s: float = 120.0) -> str:
        """The slide's last state: `ready`, `failed`, or whatever it is when time is up."""
        ends_at, state = time.monotonic() + within_s, ""
        while time.monotonic() < ends_at:
            state = str((await self.get(f"/v1/slides/{slide_id}", key)).json.get("status", ""))
            if state in ("ready", "failed"):
                break
            await asyncio.sleep(0.2)
        return state


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: Budget) -> None:
        self.reader, self.writer, self._budget = reader, writer, budget

    async def write(self, data: bytes) -> None:
        """Send, as fast as the server takes it."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            self._budget.send(len(piece))
            self.writer.write(piece)
            await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of a reply."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def reply(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """A whole reply; one to HEAD has no body."""
        status, headers = await self.head()
        if not has_body:
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, await self._chunks()
        length = int(headers.get("content-length", 0 if status in (204, 304) else -1))
        content = await (self.reader.readexactly(length) if length >= 0 else self.reader.read(_LARGEST_REPLY_BYTES))
        return status, headers, content

    async def _chunks(self) -> bytes:
        content = bytearray()
        while size := int(await self.reader.readline(), 16):
            content += await self.reader.readexactly(size)
            await self.reader.readline()
            if len(content) > _LARGEST_REPLY_BYTES:
                raise ConnectionError("a reply without an end")
        return bytes(content)

    async def closed_within(self, timeout_s: float) -> bool:
        """Whether the server ends the connection by then; whatever it says meanwhile is read."""
        try:
            async with asyncio.timeout(timeout_s):
                while await self.reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def close(self) -> None:
        """As a client that has what it wants."""
        self.writer.close()

    def hang_up(self) -> None:
        """As a client that is gone: a reset, and nothing of what is under way is wanted."""
        self.writer.transport.abort()


def request_head(
    method: str, path: str, *, key: str | None = None, headers: Headers | None = None, body: bytes = b""
) -> bytes:
    """The head of a request with this body; `headers` win over what is usual."""
    usual = {"Host": "127.0.0.1", "Connection": "close"}
    if body or method in ("POST", "PUT"):
        usual["Content-Length"] = str(len(body))
    if key is not None:
        usual["Authorization"] = f"Bearer {key}"
    lines = [f"{name}: {value}\r\n" for name, value in {**usual, **(headers or {})}.items()]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1", errors="replace")


def form(files: Sequence[FormFile]) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    boundary = secrets.token_hex(12)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for field, name, content in files
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
