"""Clients that hold every answer against the OpenAPI document: status, media type, headers, body, events.

An answer that the document does not tell of fails the test that got it, wherever in the suite that is. Objects may have
no field that is not documented. Validators are compiled once a run.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache
from typing import Any

import httpx
import jsonschema_rs
import orjson
from fastapi import FastAPI

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_EVENTS = "text/event-stream"
_LINES = "application/jsonl"
# What clients act on; others come from the framework or are said of every answer.
_MEANT = ("Retry-After", "Location", "ETag", "Content-Range", "WWW-Authenticate", "X-Turns-Left-Out")
# They carry the document and do not describe themselves.
_OF_THE_DOCUMENT = ("/openapi.json", "/docs")


class Contract:
    """One document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = orjson.loads(orjson.dumps(document["components"]))
        for schema in self._components["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        self._operations = [(_pattern(path), operations) for path, operations in document["paths"].items()]
        self._operations.sort(key=lambda it: it[0].groups)
        self._validators: dict[bytes, jsonschema_rs.Validator] = {}

    def check(self, request: httpx.Request, response: httpx.Response, body: bytes | None) -> None:
        """Raise AssertionError unless the document says so; a body of None was not read."""
        path = request.url.path
        is_page = path == "/" or path.startswith("/page/")  # files for browsers
        if (path in _OF_THE_DOCUMENT or is_page) and (response.is_success or response.status_code == 304):
            return
        operations = next((it for pattern, it in self._operations if pattern.fullmatch(path)), {})
        operation = operations.get(request.method.lower())
        where = f"{request.method} {path}: {response.status_code}"
        media_type = response.headers.get("Content-Type", "").split(";")[0]
        if operation is None:
            self._check_refusal(where, response, media_type, body)
            return
        told = operation["responses"].get(str(response.status_code))
        assert told is not None, f"{where} is not documented, {body!r:.300}"
        self._check_headers(where, told.get("headers", {}), response)
        content = told.get("content", {})
        if not content:
            assert not body, f"{where} has a body and none is documented"
            return
        assert media_type in content, f"{where} is {media_type or 'untyped'}, documented is {', '.join(content)}"
        if request.method == "HEAD":
            assert not body
        elif body is not None:
            self._check_body(f"{where} {media_type}", content[media_type], media_type, body)

    def _check_refusal(self, where: str, response: httpx.Response, media_type: str, body: bytes | None) -> None:
        """No address, or another method: always an error, in one of the two shapes."""
        assert response.status_code >= 400, f"{where}: there is no such operation in the document"
        shape = {"application/problem+json": "Problem", "application/json": "OpenAIError"}.get(media_type)
        assert shape is not None, f"{where} is {media_type}"
        if body and response.request.method != "HEAD":
            self._validate(where, {"$ref": f"#/components/schemas/{shape}"}, orjson.loads(body))

    def _check_headers(self, where: str, told: Mapping[str, Any], response: httpx.Response) -> None:
        for name in _MEANT:
            assert name in told or name not in response.headers, f"{where}: the header {name} is not documented"
        for name, reference in told.items():
            header = self._resolved(reference)
            value = response.headers.get(name)
            assert value is not None or not header.get("required"), f"{where}: the header {name} is missing"
            if value is not None:
                is_number = header["schema"]["type"] == "integer" and value.isdigit()
                self._validate(f"{where}: {name}", header["schema"], int(value) if is_number else value)

    def _check_body(self, where: str, told: Mapping[str, Any], media_type: str, body: bytes) -> None:
        if media_type == _EVENTS:
            for event in _events(body):
                self._check_event(where, told["itemSchema"], event)
        elif media_type == _LINES:
            for line in body.splitlines():
                self._validate(where, told["itemSchema"], orjson.loads(line))
        elif media_type.endswith("json"):
            value = orjson.loads(body)
            self._validate(where, told["schema"], value)
            if "examples" in told:  # of an error, one for each code
                code = value["code"] if media_type != "application/json" else value["error"]["code"]
                assert code in told["examples"], f"{where}: the code {code} is not documented"
        else:
            assert body, where

    def _check_event(self, where: str, schema: Mapping[str, Any], event: dict[str, str]) -> None:
        kinds = self._kinds(schema)
        fits = [kind for kind in kinds if self._validator(kind).is_valid(event)]
        assert fits, f"{where}: no documented event is {event}"
        content = fits[0]["properties"]["data"].get("contentSchema")
        if content is not None:
            self._validate(f"{where}: event {event.get('event', '')}", content, orjson.loads(event["data"]))

    def _kinds(self, schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The kinds of event that a stream's items may be."""
        schema = self._resolved(schema)
        several = schema.get("oneOf") or schema.get("anyOf")
        return [kind for it in several for kind in self._kinds(it)] if several else [schema]

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in schema:
            return schema
        _, _, kind, name = schema["$ref"].split("/")
        found: Mapping[str, Any] = self._components[kind][name]
        return found

    def _validate(self, where: str, schema: Mapping[str, Any], value: Any) -> None:
        try:
            self._validator(schema).validate(value)
        except jsonschema_rs.ValidationError as error:
            raise AssertionError(f"{where} is not what is documented: {error.message}\n{value}") from error

    def _validator(self, schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
        key = orjson.dumps(schema)
        if key not in self._validators:
            whole = {"$schema": _DIALECT, "components": self._components, "allOf": [schema]}
            self._validators[key] = jsonschema_rs.validator_for(whole, validate_formats=True)
        return self._validators[key]


class CheckedClient(httpx.AsyncClient):
    """What tests in this process ask with."""

    def __init__(self, contract: Contract, **options: Any) -> None:
        super().__init__(**options)
        self._contract = contract

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """The answer, held against the document; that of a stream when it is read to its end."""
        response = await super().send(request, stream=stream, **options)
        self._contract.check(request, response, None if stream else response.content)
        if stream:
            response.stream = _Watched(self._contract, response)
        return response


class CheckedSyncClient(httpx.Client):
    """The same for servers that run elsewhere."""

    def __init__(self, contract: Contract, **options: Any) -> None:
        super().__init__(**options)
        self._contract = contract

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """As CheckedClient's."""
        response = super().send(request, stream=stream, **options)
        self._contract.check(request, response, None if stream else response.content)
        if stream:
            response.stream = _Watched(self._contract, response)
        return response


class _Watched(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A streamed body that is checked at its end; one that is left early is not."""

    def __init__(self, contract: Contract, response: httpx.Response) -> None:
        self._contract = contract
        self._response = response
        self._stream: Any = response.stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = []
        async for piece in self._stream:
            pieces.append(piece)
            yield piece
        self._contract.check(self._response.request, self._response, b"".join(pieces))

    def __iter__(self) -> Iterator[bytes]:
        pieces = []
        for piece in self._stream:
            pieces.append(piece)
            yield piece
        self._contract.check(self._response.request, self._response, b"".join(pieces))

    async def aclose(self) -> None:
        await self._stream.aclose()

    def close(self) -> None:
        self._stream.close()


class _Once:
    """The contract of this code, which is the same for all apps of a run but for who needs a key."""

    contract: Contract | None = None


def contract_of(app: FastAPI) -> Contract:
    """The document that an app of this process shows."""
    if _Once.contract is None:
        _Once.contract = Contract(app.openapi())
    return _Once.contract


@lru_cache
def contract_at(url: str, key: str | None = None) -> Contract:
    """The document that a server shows."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.get(f"{url}/openapi.json?version=3.2", headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    return Contract(answer.json())


def _pattern(path: str) -> re.Pattern[str]:
    """Matches the addresses of a path; a model's name may hold slashes."""
    return re.compile("".join(_step(step) for step in re.split(r"(\{[^}]+\})", path)))


def _step(step: str) -> str:
    if not step.startswith("{"):
        return re.escape(step)
    return "(.+)" if step == "{model}" else "([^/]+)"


def _events(body: bytes) -> Iterator[dict[str, str]]:
    """The fields of each whole event of a stream; comments are left out."""
    for block in body.decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
        if fields:
            yield fields
