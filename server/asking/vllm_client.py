"""Requests to one vLLM: its address, its key and its connections, in httpx' requests and responses.

httpx' own client merges cookies, redirects and authentication into every request, none of which vLLM has: a
millisecond of the time to the first token (docs/decisions/0030).
"""

from collections.abc import Mapping

import httpx

from server.asking.vllm_transport import VllmTransport

# Between two tokens, or before the first behind a full queue. A vLLM that is stopped in mid-stream may fall silent
# without closing the connection, so silence has to end an answer too.
_TIMEOUT = httpx.Timeout(connect=3.0, read=120.0, write=60.0, pool=60.0)
# Below the five seconds after which vLLM's server closes a connection that nothing comes through.
_KEEPALIVE_S = 3.0
_IDLE_CONNECTIONS = 64


class VllmClient:
    """Sends requests to the vLLM at `url`, or to the balancer before several; proxies of the environment are not for
    it."""

    def __init__(self, url: str, api_key: str = "", transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._transport = transport or VllmTransport(_IDLE_CONNECTIONS, _KEEPALIVE_S)
        self._urls: dict[str, httpx.URL] = {}
        # A balancer that compresses would hold tokens back.
        self._headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "eyepiece"}
        if api_key:  # a vLLM without key wants no header: "Bearer " with nothing behind it is not one that HTTP allows
            self._headers["Authorization"] = f"Bearer {api_key}"

    async def get(self, path: str, timeout_s: float) -> httpx.Response:
        """The response's head; the caller closes it. Raises httpx.HTTPError."""
        request = httpx.Request("GET", self._url_of(path), headers=self._headers)
        return await self._send(request, httpx.Timeout(timeout_s), {})

    async def post(
        self, path: str, content: bytes, headers: Mapping[str, str], extensions: Mapping[str, bool]
    ) -> httpx.Response:
        """The same for a body; the extensions are the transport's (`patient`, `new_connection`)."""
        request = httpx.Request("POST", self._url_of(path), headers={**self._headers, **headers}, content=content)
        return await self._send(request, _TIMEOUT, extensions)

    def give_up_silent(self, silent_s: float) -> None:
        """As VllmTransport.give_up_silent."""
        if isinstance(self._transport, VllmTransport):
            self._transport.give_up_silent(silent_s)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    def _url_of(self, path: str) -> httpx.URL:
        if path not in self._urls:
            self._urls[path] = httpx.URL(self._url + path)
        return self._urls[path]

    async def _send(
        self, request: httpx.Request, limits: httpx.Timeout, extensions: Mapping[str, bool]
    ) -> httpx.Response:
        request.extensions = {**extensions, "timeout": limits.as_dict()}
        response = await self._transport.handle_async_request(request)
        response.request = request
        return response
