"""Jobs that make a region's embedding: a queue of their own for each model, which a worker reads beside its slides.

A region is a second's work, and somebody waits for it: it may not stand behind a slide that takes an hour, however
urgent. Tenants take turns. Delivery is at least once, as of encode jobs; the embedding's place is named by its content.
"""

from redis.asyncio import Redis
from redis.exceptions import RedisError
from saq import Job, Status

from server.encoding.jobs import TRACE, UNFINISHED, JobQueue
from server.errors import Overloaded, QueueUnavailable
from server.settings import Settings
from server.slides.region_record import SlideRegion
from server.telemetry.tracing import trace_headers

MAKE_REGION = "make_region"
_TURNS_KEY = "eyepiece:region-turns"
_TIMEOUT_S = 600
# Long enough to see that every attempt has killed its worker.
_FINISHED_TTL_S = 3_600


class RegionJobs:
    """Enqueue, find and cancel."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._settings = settings
        others = [served.name for served in settings.served_models[1:]]
        self._queues = {model: region_queue(redis, model) for model in ("", *others)}

    def queue_of(self, model: str) -> JobQueue:
        """That of a model by name; "" is the default."""
        return self._queues.get(model, self._queues[""])

    async def enqueue(self, region: SlideRegion) -> bool:
        """Queue the region; False when it is queued or running already.

        Raises:
            Overloaded: too many of the tenant's regions wait.
            QueueUnavailable: Redis does not answer.
        """
        try:
            queue, job = self.queue_of(region.slide.model), self._job(region)
            if await self.find(region) is not None:
                return False
            await self._require_room(queue, region.slide.tenant)
            if await queue.enqueue(job) is not None:
                return True
            return await queue.discard_unreadable(job.key) and await queue.enqueue(job) is not None
        except RedisError as error:
            raise QueueUnavailable("The job queue does not answer; the region is kept, try again.") from error

    async def find(self, region: SlideRegion, *, finished: bool = False) -> Job | None:
        """The region's unfinished job, or with `finished` also one that ended lately."""
        job = await self.queue_of(region.slide.model).job(_job_key(region))
        return job if job is not None and (finished or job.status in UNFINISHED) else None

    async def forget(self, region: SlideRegion) -> None:
        """Nothing is kept of the region's last job."""
        await self.queue_of(region.slide.model).forget(_job_key(region))

    async def is_running(self, region: SlideRegion) -> bool:
        """Whether a worker has it; False while Redis does not answer."""
        try:
            job = await self.find(region)
        except RedisError:
            return False
        return job is not None and job.status == Status.ACTIVE

    async def cancel(self, tenant: str, slide_id: str) -> None:
        """Take all regions of a slide that is being deleted out of the queues, or stop them within about a second."""
        for queue in self._queues.values():
            for key in await queue.unfinished_keys():
                if key.split(":")[1:3] == [tenant, slide_id]:
                    await queue.forget(key)

    async def _require_room(self, queue: JobQueue, tenant: str) -> None:
        keys = await queue.unfinished_keys()
        own = sum(key.split(":")[1] == tenant for key in keys)
        settings = self._settings
        if len(keys) >= settings.max_queued_jobs or own >= settings.max_queued_jobs_per_tenant:
            raise Overloaded("Too many regions are waiting; try again shortly.", retry_after_s=10)

    def _job(self, region: SlideRegion) -> Job:
        slide = region.slide
        return Job(
            function=MAKE_REGION,
            key=_job_key(region),
            kwargs={
                "tenant": slide.tenant,
                "slide_id": slide.id,
                "encoder_id": slide.encoder_id,
                "generation": slide.generation,
                "region_id": region.region_id,
                **({"model": slide.model} if slide.model else {}),
            },
            timeout=_TIMEOUT_S,
            heartbeat=self._settings.job_heartbeat_s,
            retries=self._settings.job_attempts,
            retry_delay=1.0,
            ttl=_FINISHED_TTL_S,
            meta={TRACE: trace_headers()},
        )


def region_queue(redis: Redis, model: str) -> JobQueue:
    """That of a model by name; "" is the default."""
    queue = JobQueue(redis, name=f"eyepiece-regions{model and f'-{model}'}")
    queue.turns_key = f"{_TURNS_KEY}:{model}" if model else _TURNS_KEY
    return queue


def _job_key(region: SlideRegion) -> str:
    slide = region.slide
    return f"region:{slide.tenant}:{slide.id}:{slide.encoder_id}:{slide.generation}:{region.region_id}"
