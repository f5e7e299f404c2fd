"""The HTTP contract as seen by the command line: synchronous, one method a route, errors as sentences.

Knows nothing of the server's code, only of its contract, so it works against any Eyepiece at any URL.
"""

import base64
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from server.commands.outcome import CommandError, ExitCode

# Connecting is quick or hopeless; an answer may wait for its turn in vLLM, and comments keep streams alive.
TIMEOUT = httpx.Timeout(120.0, connect=5.0)
# A CR at the very end of what has come may be half of a CRLF.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
MAX_RECONNECTS = 5
RECONNECT_WAIT_S = 1.0
_TUS = {"Tus-Resumable": "1.0.0"}
# What HEAD, whose answers have no body, is refused with.
_CODE_OF_STATUS = {404: "not_found", 410: "upload_gone", 423: "upload_locked", 429: "overloaded", 503: "draining"}
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event with its JSON; `id` resumes the stream behind it."""

    name: str
    data: dict[str, Any]
    id: str | None = None


class ApiClient:
    """A server at `base_url`; `key` may be empty on a loopback address."""

    def __init__(
        self,
        base_url: str,
        key: str = "",
        transport: httpx.BaseTransport | None = None,
        reconnect_wait_s: float = RECONNECT_WAIT_S,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.base_url = base_url.rstrip("/")
        self._reconnect_wait_s = reconnect_wait_s
        with _translated_errors(self.base_url):
            is_local = httpx.URL(self.base_url).host in LOOPBACK_HOSTS  # never through a proxy
        self._http = httpx.Client(
            base_url=self.base_url, headers=headers, timeout=TIMEOUT, transport=transport, trust_env=not is_local
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        """Whether /readyz answers 200 now."""
        try:
            return self._http.get("/readyz", timeout=2.0).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def create_upload(self, size_bytes: int, metadata: Mapping[str, str]) -> str:
        """Begins an upload; its path."""
        told = ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in metadata.items())
        headers = {**_TUS, "Upload-Length": str(size_bytes), "Upload-Metadata": told}
        with _translated_errors(self.base_url):
            response = self._http.post("/v1/uploads", headers=headers)
        if response.is_error:
            raise refusal(response)
        return str(response.headers["Location"])

    def upload_offset(self, upload: str) -> tuple[int, str | None]:
        """How many bytes the server has of an upload, and the slide that it became."""
        with _translated_errors(self.base_url):
            response = self._http.head(upload, headers=_TUS)
        if response.is_error:
            raise _refusal_without_words(response)
        return _offset_and_slide(response)

    def append_to_upload(
        self, upload: str, offset: int, pieces: Iterator[bytes], size_bytes: int
    ) -> tuple[int, str | None]:
        """Sends `size_bytes` from `offset` on; how many the server has then, and the slide that it became."""
        headers = {
            **_TUS,
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size_bytes),
            "Upload-Offset": str(offset),
        }
        with _translated_errors(self.base_url):
            response = self._http.patch(upload, headers=headers, content=pieces)
        if response.is_error:
            raise refusal(response)
        return _offset_and_slide(response)

    def finish_slide(self, group: str, files: int) -> dict[str, Any]:
        """Makes a slide of the uploads that name it `group`; the Slide."""
        with _translated_errors(self.base_url):
            response = self._http.post("/v1/uploads/slides", json={"slide": group, "files": files})
        return _json_or_raise(response)

    def slides(self, **query: str | int) -> dict[str, Any]:
        """A page of slides; `query` is the query of that route."""
        with _translated_errors(self.base_url):
            response = self._http.get("/v1/slides", params=query)
        return _json_or_raise(response)

    def change_slide(self, slide_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Changes what is said of a slide; the Slide."""
        with _translated_errors(self.base_url):
            response = self._http.patch(f"/v1/slides/{slide_id}", json=dict(changes))
        return _json_or_raise(response)

    def case_events(self, body: Mapping[str, Any]) -> Iterator[ServerEvent]:
        """The answers of a case's slides, one after the other; `body` is the body of that route."""
        with _translated_errors(self.base_url):
            yield from self._stream("POST", "/v1/cases/questions", None, dict(body))

    def case_answers(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The same all at once: the shape of `done`."""
        with _translated_errors(self.base_url):
            response = self._http.post("/v1/cases/questions", json={**body, "stream": False})
        return _json_or_raise(response)

    def delete_slide(self, slide_id: str) -> None:
        """Deletes a slide with all that was made of it."""
        with _translated_errors(self.base_url):
            response = self._http.delete(f"/v1/slides/{slide_id}")
        if response.is_error:
            raise refusal(response)

    def models(self) -> list[dict[str, Any]]:
        """The models that the server answers with, the default first."""
        with _translated_errors(self.base_url):
            response = self._http.get("/v1/models")
        return list(_json_or_raise(response)["data"])

    def model_names(self) -> list[str]:
        """The names of the models, the default's first."""
        return [str(model["id"]) for model in self.models()]

    def encode(
        self,
        slide_id: str,
        mpp: float | None,
        urgent: bool,
        model: str | None = None,
        tile_budget: dict[str, object] | str | None = None,
    ) -> dict[str, Any]:
        """Queues the slide again with a resolution (µm/px), a priority or a tile budget ("all" for none), or for
        another model. Returns the Slide."""
        body: dict[str, Any] = {"priority": "urgent" if urgent else "routine"}
        if mpp is not None:
            body["mpp"] = mpp
        if model is not None:
            body["encoder"] = model
        if tile_budget is not None:
            body["tile_budget"] = tile_budget
        with _translated_errors(self.base_url):
            response = self._http.post(f"/v1/slides/{slide_id}/encode", json=body)
        return _json_or_raise(response)

    def slide(self, slide_id: str) -> dict[str, Any]:
        """The Slide."""
        with _translated_errors(self.base_url):
            response = self._http.get(f"/v1/slides/{slide_id}")
        return _json_or_raise(response)

    def encode_events(self, slide_id: str, model: str | None = None) -> Iterator[ServerEvent]:
        """Progress until `ready` or `failed`; resumes where it was when the connection breaks."""
        last_id: str | None = None
        path = f"/v1/slides/{slide_id}/events" + (f"?model={model}" if model else "")
        for _ in range(MAX_RECONNECTS):
            try:
                for event in self._stream("GET", path, last_id, None):
                    last_id = event.id or last_id
                    yield event
                    if event.name in ("ready", "failed"):
                        return
            except httpx.TransportError:
                pass  # the stream is resumed below
            time.sleep(self._reconnect_wait_s)
        raise CommandError(
            f"The progress of the slide broke off {MAX_RECONNECTS} times; it goes on by itself, "
            f"see GET {self.base_url}/v1/slides/{slide_id}.",
            ExitCode.UNREACHABLE,
        )

    def answer_events(self, slide_id: str, body: dict[str, Any]) -> Iterator[ServerEvent]:
        """`token` events, then `done` or `error`. `body` is the body of the questions route."""
        with _translated_errors(self.base_url):
            yield from self._stream("POST", f"/v1/slides/{slide_id}/questions", None, body)

    def answer(self, slide_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer at once: the shape of `done`."""
        with _translated_errors(self.base_url):
            response = self._http.post(f"/v1/slides/{slide_id}/questions", json={**body, "stream": False})
        return _json_or_raise(response)

    def report_events(self, slide_id: str, body: dict[str, Any]) -> Iterator[ServerEvent]:
        """`report`, `token` and `section` events, then `done` or `error`. `body` is the body of that route."""
        with _translated_errors(self.base_url):
            yield from self._stream("POST", f"/v1/slides/{slide_id}/reports", None, body)

    def report(self, slide_id: str, number: int, form: str) -> bytes:
        """A report that is kept, in a form."""
        with _translated_errors(self.base_url):
            response = self._http.get(f"/v1/slides/{slide_id}/reports/{number}", params={"format": form})
        if response.is_error:
            raise refusal(response)
        return response.content

    def dicom_headers(self, study: str, series: str) -> list[dict[str, Any]]:
        """The headers of a series' instances, as DICOM's JSON has them."""
        with _translated_errors(self.base_url):
            response = self._http.get(
                f"/v1/dicomweb/studies/{study}/series/{series}/metadata", headers={"Accept": "application/dicom+json"}
            )
        headers: list[dict[str, Any]] = _json_or_raise(response)  # type: ignore[assignment]  # a list, here alone
        return headers

    def evidence(self, slide_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Where an answer has its support, all at once: the shape of that route's `done`."""
        with _translated_errors(self.base_url):
            response = self._http.post(f"/v1/slides/{slide_id}/evidence", json={**body, "stream": False})
        return _json_or_raise(response)

    def feedback(self, since: str | None) -> Iterator[dict[str, Any]]:
        """Every line of the export of feedback, from that moment on."""
        query = {"since": since} if since else {}
        with _translated_errors(self.base_url), self._http.stream("GET", "/v1/feedback", params=query) as response:
            if response.is_error:
                response.read()
                raise refusal(response)
            rest = b""
            for piece in response.iter_bytes():
                *lines, rest = (rest + piece).split(b"\n")
                yield from (_json(line.decode(errors="replace")) for line in lines)

    def give_feedback(self, conversation_id: str, turn: int, body: dict[str, Any]) -> dict[str, Any]:
        """Judges a turn; `body` is the body of that route. Returns the Feedback."""
        with _translated_errors(self.base_url):
            response = self._http.put(f"/v1/conversations/{conversation_id}/turns/{turn}/feedback", json=body)
        return _json_or_raise(response)

    def webhooks(self) -> dict[str, Any]:
        """Who is told of the tenant's slides."""
        with _translated_errors(self.base_url):
            response = self._http.get("/v1/webhooks")
        return _json_or_raise(response)

    def dead_webhooks(self, endpoint: str) -> dict[str, Any]:
        """What an endpoint did not take."""
        with _translated_errors(self.base_url):
            response = self._http.get(f"/v1/webhooks/{quote(endpoint, safe='')}/dead")
        return _json_or_raise(response)

    def replay_webhooks(self, endpoint: str, events: list[str]) -> dict[str, Any]:
        """Has these events, or all that were given up, tried again."""
        with _translated_errors(self.base_url):
            response = self._http.post(
                f"/v1/webhooks/{quote(endpoint, safe='')}/replay", json={"ids": events} if events else {}
            )
        return _json_or_raise(response)

    def features(self, slide_id: str) -> bytes:
        """The features file (HDF5) of a slide that is ready."""
        with _translated_errors(self.base_url):
            response = self._http.get(f"/v1/slides/{slide_id}/features")
        if response.is_error:
            raise refusal(response)
        return response.content

    def _stream(
        self, method: str, path: str, last_id: str | None, body: dict[str, Any] | None
    ) -> Iterator[ServerEvent]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        with self._http.stream(method, path, headers=headers, json=body) as response:
            if response.is_error:
                response.read()
                _json_or_raise(response)
            yield from parse_events(event_stream_lines(response.iter_bytes()))


def event_stream_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Lines of a text/event-stream, which end at CR, LF or both and nowhere else: answers may hold U+2028 or U+0085,
    where `str.splitlines`, and httpx with it, would cut them."""
    rest = b""
    for piece in pieces:
        *lines, rest = _LINE_END.split(rest + piece)
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace").removesuffix("\r")


def parse_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Events of a text/event-stream; comments and events without data are passed over."""
    name, data, event_id = "message", list[str](), None
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerEvent(name, _json("\n".join(data)), event_id)
            name, data, event_id = "message", [], None
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value


def _json(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CommandError("The server's stream cannot be read; is it an Eyepiece?", ExitCode.FAILED)
    return content


@contextmanager
def _translated_errors(base_url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise CommandError("The URL is not valid; give one like http://127.0.0.1:8000.", ExitCode.USAGE) from error
    except httpx.ConnectError as error:
        raise CommandError(
            f"Nothing answers at {base_url}: start the server with `eyepiece up`, or name another one with --url.",
            ExitCode.UNREACHABLE,
        ) from error
    except httpx.TransportError as error:
        raise CommandError(
            f"The connection to {base_url} broke off ({type(error).__name__}); try again.",
            ExitCode.UNREACHABLE,
        ) from error


def _json_or_raise(response: httpx.Response) -> dict[str, Any]:
    if response.is_success:
        content: dict[str, Any] = response.json()
        return content
    raise refusal(response)


def refusal(response: httpx.Response) -> CommandError:
    """What the server said, as a sentence: of problem+json, or of the OpenAI dialect's routes; else the status."""
    try:
        problem = response.json()
        said = problem.get("error") or problem
        detail, code = str(said.get("detail") or said["message"]), str(said["code"])
    except (ValueError, KeyError, TypeError, AttributeError):
        detail, code = f"The server answered {response.status_code} and did not say why.", None
    wait = response.headers.get("Retry-After")
    retry_after_s = int(wait) if wait and wait.isdigit() else None
    if retry_after_s is not None:
        detail = f"{detail} Try again in {retry_after_s} s."
    return CommandError(detail, ExitCode.REFUSED, code, retry_after_s)


def _refusal_without_words(response: httpx.Response) -> CommandError:
    code = _CODE_OF_STATUS.get(response.status_code)
    wait = response.headers.get("Retry-After", "")
    sentence = f"The server answered {response.status_code} when it was asked how far the upload has come."
    return CommandError(sentence, ExitCode.REFUSED, code, int(wait) if wait.isdigit() else None)


def _offset_and_slide(response: httpx.Response) -> tuple[int, str | None]:
    return int(response.headers["Upload-Offset"]), response.headers.get("Eyepiece-Slide-Id")
