"""Requests without a key: nobody gets in from behind a proxy, from a foreign web page, or once there are keys."""

from collections.abc import AsyncIterator

from attacks.findings import Finding, nothing_of
from attacks.own_server import OwnServer
from attacks.target import Headers, Target

_FORWARDED: list[Headers] = [
    {"Forwarded": "for=192.0.2.1"},
    {"Forwarded": ""},
    {"X-Forwarded-For": "192.0.2.1"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-Host": "localhost"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Port": "443"},
    {"X-Forwarded-Server": "proxy"},
    {"X-Forwarded-Prefix": "/"},
    {"X-Real-Ip": "192.0.2.1"},
    {"Via": "1.1 proxy"},
    {"vIa": "1.1 proxy"},
]
_FOREIGN: list[Headers] = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8000"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "evil.example#127.0.0.1"},
    {"Host": ""},
    {"Host": "[::1"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "file://"},
]
_ROUTES = ("/v1/slides", "/v1/models")


async def before_there_are_keys(target: Target) -> list[Finding]:
    """On loopback, with no key made yet: whoever is plainly on this machine is let in, nobody else."""
    control = await target.get("/v1/slides")
    found = [Finding("control: keyless on loopback, no keys yet", str(control.status), "200", control.status == 200)]
    found.append(await _let_in(target, "keyless behind a proxy, no keys yet", _FORWARDED))
    found.append(await _let_in(target, "keyless with a foreign Host or Origin", _FOREIGN))
    return found


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """The same, and plainly without a key, once there are keys."""
    plain: list[Headers] = [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp4"}, {"Authorization": ""}]
    yield await _let_in(server.target, "keyless although there are keys", plain)
    yield await _let_in(server.target, "keyless behind a proxy, there are keys", _FORWARDED)
    yield await _let_in(server.target, "made-up keys", [_key(it) for it in _made_up(server.other)])


async def _let_in(target: Target, attack: str, many: list[Headers]) -> Finding:
    wrong = []
    for headers in many:
        for route in _ROUTES:
            reply = await target.get(route, headers=headers)
            if reply.status not in (400, 401, 403, 421):
                told = ", ".join(f"{name}: {value[:24]}" for name, value in headers.items()) or "no key"
                wrong.append(f"{told}: {reply.status}")
    return nothing_of(attack, wrong, "401", len(many) * len(_ROUTES))


def _key(secret: str) -> Headers:
    return {"Authorization": f"Bearer {secret}"}


def _made_up(good: str) -> list[str]:
    """Near a good one."""
    return [
        good[:-1],
        good + "A",
        good[:-1] + "~",
        good.upper(),
        "eyp_" + "A" * 43,
        "eyp_",
        f"{good}/../{good}",
        "eyp_*",
    ]
