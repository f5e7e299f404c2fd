"""/livez, /readyz and /metrics of a worker, served from a thread: they answer while a slide is encoded."""

import threading

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.machine.addresses import bind
from server.telemetry.metrics import WorkerMetrics


class WorkerHealth:
    """`ready` is set by the worker; the port is known once constructed."""

    def __init__(self, metrics: WorkerMetrics, host: str, port: int) -> None:
        self._metrics = metrics
        self._ready = False
        self._sockets = bind(host, port)
        for listener in self._sockets:
            listener.listen()  # who asks before `start` waits for the answer
        self.port: int = self._sockets[0].getsockname()[1]

    @property
    def ready(self) -> bool:
        """Whether the worker is warm and its queue answers."""
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._ready = ready
        self._metrics.ready.set(ready)

    def start(self) -> None:
        """Serve until the process ends; a thread outside the main one leaves signals alone."""
        routes = [Route("/livez", self._live), Route("/readyz", self._is_ready), Route("/metrics", self._show)]
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, args=(self._sockets,), daemon=True, name="worker-health").start()

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _is_ready(self, _: Request) -> Response:
        status = "ready" if self._ready else "not_ready"
        return JSONResponse({"status": status}, 200 if self._ready else 503)

    async def _show(self, _: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)
