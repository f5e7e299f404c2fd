"""What a server that is played in a test answers to a resumable upload: the whole file in one piece."""

import base64
from collections.abc import Callable

import httpx


class TakenUploads:
    """Takes files of any name; `take` gets name and content, and gives the slide's id."""

    def __init__(self, take: Callable[[str, bytes], str]) -> None:
        self._take = take
        self._names: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        """The answer to a request of an upload; None for every other request."""
        path = request.url.path
        if path == "/v1/uploads":
            told = dict(entry.split(" ") for entry in request.headers["Upload-Metadata"].split(","))
            self._names.append(base64.b64decode(told["filename"]).decode())
            return httpx.Response(201, headers={"Location": f"/v1/uploads/{len(self._names) - 1}"})
        if path.startswith("/v1/uploads/") and request.method == "PATCH":
            content = request.read()
            slide_id = self._take(self._names[int(path.rsplit("/", 1)[1])], content)
            return httpx.Response(204, headers={"Upload-Offset": str(len(content)), "Eyepiece-Slide-Id": slide_id})
        return None
