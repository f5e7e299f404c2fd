"""Jobs taken from the queue as a SAQ worker takes them."""

import time
from collections.abc import Callable

from saq import Job, Status

from server.encoding.encode_worker import WorkerQueue
from server.encoding.jobs import EncodeJobs
from server.slides.slide_record import SlideRecord

RecordOf = Callable[..., SlideRecord]


async def start(queue: WorkerQueue) -> Job:
    """Take the next job as a SAQ worker does."""
    job = await queue.dequeue()
    assert job is not None
    job.started = int(time.time() * 1000)
    job.attempts += 1
    await job.update(status=Status.ACTIVE)
    return job


async def order(jobs: EncodeJobs, count: int) -> list[str]:
    """The tenant and name of the slides that a worker takes next."""
    queue, taken = WorkerQueue(jobs), []
    for _ in range(count):
        kwargs = (await start(queue)).kwargs
        assert kwargs is not None
        taken.append(f"{kwargs['tenant']} {bytes.fromhex(kwargs['slide_id']).decode().rstrip(chr(0))}")
    return taken
