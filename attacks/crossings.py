"""One tenant with another's ids: on every route the reply is the one to an id that nobody has."""

import re
import secrets
from collections.abc import AsyncIterator, Callable

from attacks.findings import Finding, nothing_of, times_tell
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, pixel_slide, ready_slide
from attacks.target import Reply

_OWN_HEADERS = ("date", "x-request-id", "content-length")
_QUESTION = {"question": "What is this?", "stream": False, "max_tokens": 4}
_PATHS = (
    "..",
    "../..",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fkeys",
    "..%2f..%2fother%2fslides",
    "*",
    "%00",
    "%",
    "%ff%fe",
    "{id}%00",
    "{id}%2f..%2f{id}",
    "{ID}",
    " {id}",
    "{id}.json",
    "{id}%0d%0aX-Injected:%201",
    "a" * 5000,
)
_LAST_EVENT_IDS = ("0-0", "-", "+", "$", "*", "(1-0", "9" * 30 + "-0", "1-0\tX", "1-0 COUNT 1", "é", "{other}", "-1--1")


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Every route with an id of somebody else, and with what is no id."""
    slide = await ready_slide(server, server.other)
    pixels = await ready_slide(server, server.other, pixel_slide())
    own = await ready_slide(server, server.attacker)
    answer = await server.target.ask(slide, server.other)
    conversation = str(answer.json.get("conversation_id"))
    yield await _crossed(server, {"features": slide, "pixels": pixels}, conversation)
    yield await _conversations(server, own, conversation)
    yield await _not_listed(server, {slide, pixels})
    yield await _timing(server, slide)
    yield await _paths(server, own)
    yield await _event_ids(server, own)
    yield await _slide_urls(server, slide, own)
    yield await _still_whole(server, slide, conversation)


def _requests(slide_id: str, conversation: str) -> list[tuple[str, str, object]]:
    """(method, path, JSON) of every route that takes an id; bytes go as a form."""
    chat = {"model": "demo", "messages": [{"role": "user", "content": [
        {"type": "slide", "slide": {"id": slide_id}}, {"type": "text", "text": "What is this?"},
    ]}]}  # fmt: skip
    url = {"model": "demo", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"slide:{slide_id}"}}, {"type": "text", "text": "What is this?"},
    ]}]}  # fmt: skip
    base = f"/v1/slides/{slide_id}"
    return [
        ("GET", base, None),
        ("HEAD", base, None),
        ("GET", f"{base}/events", None),
        ("GET", f"{base}/thumbnail", None),
        ("GET", f"{base}/tiles.dzi", None),
        ("GET", f"{base}/tiles/0/0_0.jpg", None),
        ("GET", f"{base}/features", None),
        ("HEAD", f"{base}/features", None),
        ("PUT", f"{base}/features", features_file()),
        ("POST", f"{base}/encode", {}),
        ("POST", f"{base}/encode", {"mpp": 0.5, "priority": "urgent"}),
        ("POST", f"{base}/questions", _QUESTION),
        ("POST", f"{base}/questions", {**_QUESTION, "stream": True}),
        ("POST", f"{base}/questions", {**_QUESTION, "conversation_id": conversation}),
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/chat/completions", {**chat, "stream": True}),
        ("POST", "/v1/chat/completions", url),
        ("GET", f"/v1/conversations/{conversation}", None),
        ("DELETE", f"/v1/conversations/{conversation}", None),
        ("DELETE", base, None),
    ]


async def _crossed(server: OwnServer, slides: dict[str, str], conversation: str) -> Finding:
    wrong, tried = [], 0
    for kind, slide_id in slides.items():
        nobody, no_conversation = secrets.token_hex(32), f"conv_{secrets.token_urlsafe(16)}"
        theirs, nobodys = _requests(slide_id, conversation), _requests(nobody, no_conversation)
        for (method, path, content), (_, other_path, other_content) in zip(theirs, nobodys, strict=True):
            crossed = await _send(server, method, path, content)
            unknown = await _send(server, method, other_path, other_content)
            tried += 1
            seen = _seen(crossed, slide_id, conversation)
            if crossed.status < 400 or seen != _seen(unknown, nobody, no_conversation):
                route = path.replace(slide_id, "…").replace(conversation, "…")
                wrong.append(f"{method} {route} ({kind}): {crossed.status}, of nobody {unknown.status}")
    return nothing_of("another tenant's ids on every route", wrong, "as an id that nobody has", tried)


async def _send(server: OwnServer, method: str, path: str, content: object) -> Reply:
    if isinstance(content, bytes):
        return await server.target.upload([("file", "a.h5", content)], server.attacker, path)
    if content is None:
        return await server.target.send(method, path, key=server.attacker, timeout_s=20)
    return await server.target.post(path, content, server.attacker, timeout_s=20)


def _seen(reply: Reply, *ids: str) -> tuple[int, str, dict[str, str]]:
    text = reply.body.decode(errors="replace")
    for it in ids:
        text = text.replace(it, "…")
    kept = {name: value for name, value in reply.headers.items() if name not in _OWN_HEADERS}
    return reply.status, text, kept


async def _conversations(server: OwnServer, own: str, conversation: str) -> Finding:
    """A conversation of another tenant about a slide of ours."""
    wrong, tried = [], (conversation, conversation.upper(), f"{conversation}*", f"conv_{'*' * 22}", "conv_" + "\n" * 22)
    for it in tried:
        reply = await server.target.ask(own, server.attacker, conversation_id=it)
        if not 400 <= reply.status < 500:
            wrong.append(f"{it[:12]!r}: {reply.status}")
    return nothing_of("another tenant's conversation about an own slide", wrong, "refused", len(tried))


async def _not_listed(server: OwnServer, slides: set[str]) -> Finding:
    wrong, tried = [], ("", "0", "f" * 64, "..", "../../other/slides", *slides, "%00", "~")
    for cursor in tried:
        reply = await server.target.get(f"/v1/slides?limit=100&cursor={cursor}", server.attacker)
        listed = {it["id"] for it in reply.json.get("data", [])}
        if listed & slides or reply.status >= 500:
            wrong.append(f"cursor {cursor[:20]!r}: {reply.status}")
    return nothing_of("lists with made-up cursors", wrong, "own slides only", len(tried))


async def _timing(server: OwnServer, slide_id: str) -> Finding:
    """Whether an id exists is not told by the time of a 404 either."""
    theirs, nobodys = [], []
    for _ in range(60):
        theirs.append((await server.target.get(f"/v1/slides/{slide_id}", server.attacker)).took_s)
        nobodys.append((await server.target.get(f"/v1/slides/{secrets.token_hex(32)}", server.attacker)).took_s)
    tells = times_tell(theirs, nobodys)
    return Finding("time of a 404", "tells" if tells else "does not tell", "does not tell", not tells)


async def _paths(server: OwnServer, own: str) -> Finding:
    wrong, tails = [], ("", "/events", "/thumbnail", "/features", "/questions", "/encode")
    for path in _PATHS:
        name = path.replace("{id}", own).replace("{ID}", own.upper())
        for tail in tails:
            route = f"/v1/slides/{name.replace(' ', '%20')}{tail}"
            method = "POST" if tail in ("/questions", "/encode") else "GET"
            reply = await (
                server.target.post(route, _QUESTION if tail == "/questions" else {}, server.attacker)
                if method == "POST"
                else server.target.get(route, server.attacker)
            )
            if reply.status >= 500 or reply.status == 0 or "x-injected" in reply.headers:
                wrong.append(f"{path[:24]!r}{tail}: {reply.status}")
            if reply.status == 200 and not (path in ("..", "../..") and tail == ""):
                wrong.append(f"{path[:24]!r}{tail}: 200")
    return nothing_of("what is no id in a path", wrong, "404 or 422", len(_PATHS) * len(tails))


async def _event_ids(server: OwnServer, own: str) -> Finding:
    """Last-Event-ID goes to Redis: what is no id of an event must not."""
    wrong = []
    for it in _LAST_EVENT_IDS:
        reply = await server.target.get(
            f"/v1/slides/{own}/events", server.attacker, headers={"Last-Event-ID": it}, timeout_s=40
        )
        last = re.findall(rb"event: (\w+)", reply.body)[-1:]
        if not (400 <= reply.status < 500 or (reply.status == 200 and last == [b"ready"])):
            wrong.append(f"{it[:12]!r}: {reply.status} {last}")
    return nothing_of("made-up Last-Event-IDs", wrong, "refused, or the events to their end", len(_LAST_EVENT_IDS))


async def _slide_urls(server: OwnServer, theirs: str, own: str) -> Finding:
    """Nothing is ever fetched, and no spelling of a URL leads to another tenant."""
    urls: list[Callable[[], str]] = [
        lambda: f"slide:{theirs}",
        lambda: f"slide:../../other/slides/{theirs}",
        lambda: f"slide:{own}/../{theirs}",
        lambda: f"SLIDE:{theirs}",
        lambda: f"slide://{theirs}",
        lambda: f"slide:{theirs}:{own}",
        lambda: "slide:",
        lambda: "slide:*",
        lambda: "file:///etc/passwd",
        lambda: f"http://127.0.0.1:{server.target.port}/livez",
        lambda: "data:image/png;base64,AAAA",
        lambda: f"https://slides.invalid/{theirs}",
    ]
    wrong = []
    for make in urls:
        content = [{"type": "image_url", "image_url": {"url": make()}}, {"type": "text", "text": "What is this?"}]
        chat = {"model": "demo", "max_tokens": 4, "messages": [{"role": "user", "content": content}]}
        reply = await server.target.post("/v1/chat/completions", chat, server.attacker)
        if not 400 <= reply.status < 500:
            wrong.append(f"{make()[:24]!r}: {reply.status}")
    return nothing_of("image URLs of a chat", wrong, "refused", len(urls))


async def _still_whole(server: OwnServer, slide: str, conversation: str) -> Finding:
    """What the crossings asked to change or delete."""
    state = (await server.target.get(f"/v1/slides/{slide}", server.other)).json.get("status")
    turns = len((await server.target.get(f"/v1/conversations/{conversation}", server.other)).json.get("turns", []))
    held = state == "ready" and turns == 1
    return Finding("the other tenant's slide and conversation", f"{state}, {turns} turn", "ready, 1 turn", held)
