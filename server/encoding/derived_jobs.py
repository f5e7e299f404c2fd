"""Jobs that make something of a slide's stored features: regions, and slides without some of their tiles as evidence.

Each kind has a queue of its own for each model, which a worker reads beside its slides: somebody waits for such a job,
and it may not stand behind a slide that takes an hour, however urgent. Tenants take turns. Delivery is at least once,
as of encode jobs; what is made is named by its content.
"""

from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis
from saq import Job

from server.encoding.jobs import TRACE, UNFINISHED, JobQueue, Jobs
from server.errors import Overloaded
from server.settings import Settings
from server.slides.derived_record import Derived
from server.telemetry.tracing import trace_headers

DerivedKind = Literal["region", "evidence"]
_QUEUES: dict[DerivedKind, str] = {"region": "eyepiece-regions", "evidence": "eyepiece-evidence"}
# Long enough to see that every attempt has killed its worker.
_FINISHED_TTL_S = 3_600
_TIMEOUT_S = 600


@dataclass(frozen=True)
class _Names:
    kind: DerivedKind

    @property
    def turns(self) -> str:
        return f"eyepiece:{self.kind}-turns"

    def job(self, wanted: Derived) -> str:
        slide = wanted.slide
        return f"{self.kind}:{slide.tenant}:{slide.id}:{slide.encoder_id}:{slide.generation}:{wanted.name}"


class DerivedJobs(Jobs[Derived]):
    """Enqueue, find and cancel, of one kind."""

    def __init__(self, redis: Redis, settings: Settings, kind: DerivedKind) -> None:
        self.kind = kind
        self._settings = settings
        self._names = _Names(kind)
        others = [served.name for served in settings.served_models[1:]]
        self._queues = {model: derived_queue(redis, kind, model) for model in ("", *others)}

    unavailable = "The job queue does not answer; nothing is lost, try again."

    @property
    def function(self) -> str:
        """What SAQ calls the job."""
        return f"make_{self.kind}"

    def queue_of(self, model: str) -> JobQueue:
        """That of a model by name; "" is the default."""
        return self._queues.get(model, self._queues[""])

    async def find(self, wanted: Derived, *, finished: bool = False) -> Job | None:
        """Its unfinished job, or with `finished` also one that ended lately."""
        job = await self.queue_of(wanted.slide.model).job(self._names.job(wanted))
        return job if job is not None and (finished or job.status in UNFINISHED) else None

    async def forget(self, wanted: Derived) -> None:
        """Nothing is kept of its last job."""
        await self.queue_of(wanted.slide.model).forget(self._names.job(wanted))

    async def cancel(self, tenant: str, slide_id: str) -> None:
        """Take all of a slide that is being deleted out of the queues, or stop them within about a second."""
        for queue in self._queues.values():
            for key in await queue.unfinished_keys():
                if key.split(":")[1:3] == [tenant, slide_id]:
                    await queue.forget(key)

    async def _require_room_for(self, wanted: Derived) -> None:
        keys = await self.queue_of(wanted.slide.model).unfinished_keys()
        own = sum(key.split(":")[1] == wanted.slide.tenant for key in keys)
        settings = self._settings
        if len(keys) >= settings.max_queued_jobs or own >= settings.max_queued_jobs_per_tenant:
            raise Overloaded("Too many regions or evidence are waiting; try again shortly.", retry_after_s=10)

    def _message(self, wanted: Derived) -> tuple[JobQueue, Job]:
        slide, settings = wanted.slide, self._settings
        job = Job(
            function=self.function,
            key=self._names.job(wanted),
            kwargs={
                "tenant": slide.tenant,
                "slide_id": slide.id,
                "encoder_id": slide.encoder_id,
                "generation": slide.generation,
                "name": wanted.name,
                **({"model": slide.model} if slide.model else {}),
            },
            timeout=_TIMEOUT_S,
            heartbeat=settings.job_heartbeat_s,
            retries=settings.job_attempts,
            retry_delay=1.0,
            ttl=_FINISHED_TTL_S,
            meta={TRACE: trace_headers()},
        )
        return self.queue_of(slide.model), job


def derived_queue(redis: Redis, kind: DerivedKind, model: str) -> JobQueue:
    """That of a model by name; "" is the default."""
    queue = JobQueue(redis, name=f"{_QUEUES[kind]}{model and f'-{model}'}")
    turns = _Names(kind).turns
    queue.turns_key = f"{turns}:{model}" if model else turns
    return queue
