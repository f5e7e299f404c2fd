"""The SAQ worker of both queues, for whatever encodes: a worker process has the models, tests have a fake."""

from collections.abc import Awaitable, Callable

from saq import Worker
from saq.types import Context

from server.jobs import ENCODE, EncodeJobs, PrioritisedQueue

# A cancelled encode ends at its next batch of tiles.
_CANCEL_WITHIN_S = 20.0


def encode_worker(
    jobs: EncodeJobs,
    run: Callable[..., Awaitable[str]],
    sweep_every_s: int,
    *,
    slides_at_once: int = 1,
    abort_every_s: float = 1.0,
) -> Worker[Context]:
    """A worker for `slides_at_once` slides; `start()` it. Stopping it hands all of them back to the queue."""
    return Worker(
        PrioritisedQueue(jobs),
        [(ENCODE, run)],
        concurrency=slides_at_once,
        timers={"schedule": 1, "worker_info": 3600, "sweep": sweep_every_s, "abort": abort_every_s},  # type: ignore[arg-type]  # SAQ takes fractions too
        cancellation_hard_deadline_s=_CANCEL_WITHIN_S,
    )
