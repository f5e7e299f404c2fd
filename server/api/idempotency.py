"""`Idempotency-Key` on a route: a request that is sent again is answered as before, and nothing is done twice."""

import hashlib
import re
from collections.abc import Awaitable, Callable

import structlog
from fastapi import Request, Response
from redis.exceptions import RedisError

from server.errors import InvalidRequest
from server.slides.remembered_replies import RememberedReplies, Reply, Reservation
from server.to_the_end import to_the_end

IDEMPOTENCY_KEY = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(r"[!-~]{1,255}")
# Beyond it an answer is given and not remembered.
_MOST_BYTES = 2**20
_REMEMBERED_HEADERS = ("content-type", "location", "retry-after", "x-turns-left-out")

log = structlog.get_logger(__name__)


async def answer_once(
    request: Request, replies: RememberedReplies, handle: Callable[[Request], Awaitable[Response]]
) -> Response:
    """The answer of `handle`, or the one that the same request got before. Only success is remembered: what was refused
    changed nothing and may be sent again. Without the header this is `handle`.

    Raises:
        RequestInFlight, IdempotencyKeyReused, InvalidRequest: nothing was done.
    """
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return await handle(request)
    if not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters; a UUID is a good one.")
    asked = f"{request.method} {request.scope['path']}?".encode() + request.scope["query_string"] + b"\n"
    digest = hashlib.sha256(asked + await request.body()).hexdigest()
    found = await replies.reserve(request.state.tenant, request.path_params["slide_id"], key, digest)
    if isinstance(found, Reply):
        return Response(found.body, found.status, found.headers | {REPLAYED: "true"})
    response: Response | None = None
    try:
        response = await handle(request)
    finally:  # also when the client hangs up
        await to_the_end(_settle(replies, found, response))
    return response


async def _settle(replies: RememberedReplies, reservation: Reservation, response: Response | None) -> None:
    try:
        if response is None or response.status_code >= 300 or len(response.body) > _MOST_BYTES:
            await replies.release(reservation)
            return
        headers = {name: value for name, value in response.headers.items() if name in _REMEMBERED_HEADERS}
        await replies.keep(reservation, Reply(response.status_code, headers, bytes(response.body).decode()))
    except RedisError as error:  # the answer is there; sent again, the request waits until its key is free
        log.warning("reply_not_remembered", error=type(error).__name__)
