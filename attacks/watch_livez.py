"""Asks GET /livez ten times a second until its input ends, then prints how long each took.

A time counts from when the request was due, so that a server that stands still for a minute has made hundreds wait,
not one.

python -m attacks.watch_livez <port>
"""

import json
import select
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

_EVERY_S = 0.1
_GIVE_UP_S = 120.0


def main(port: int) -> None:
    """Until standard input ends."""
    print("watching", flush=True)
    waits: list[float] = []
    began = time.monotonic()
    while not _input_ended():
        due = began + len(waits) * _EVERY_S
        time.sleep(max(0.0, due - time.monotonic()))
        _ask(port)
        waits.append(time.monotonic() - due)
    print(json.dumps(waits), flush=True)


def _ask(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=_GIVE_UP_S)
    with suppress(OSError, HTTPException):  # a refusal is quick, and whoever watches sees it elsewhere
        connection.request("GET", "/livez")
        connection.getresponse().read()
    connection.close()


def _input_ended() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    main(int(sys.argv[1]))
