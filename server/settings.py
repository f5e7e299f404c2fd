"""Every setting, read from the environment once and passed on as an argument.

A variable is the field's name in capitals behind `EYEPIECE_`, e.g. `EYEPIECE_REDIS_URL`. Units are in the names.
Whatever is not set there may stand in a file of that name (see command_options.settings_from).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store.errors import ModelError
from model_store.manifest import NAME_PATTERN
from server.admission.quota import Quota
from server.admission.rate_limits import RateLimits
from server.identity.oidc_provider import OidcProvider
from server.uploads.dicom.archive import DicomwebArchive
from server.webhooks.endpoint import WebhookEndpoint


@dataclass(frozen=True)
class ModelAddress:
    """A model to serve and its vLLM; `url` is empty where `eyepiece up` starts it."""

    name: str
    url: str


class Settings(BaseSettings):
    """Frozen: a changed environment needs a new process, so no two parts can disagree."""

    model_config = SettingsConfigDict(env_prefix="EYEPIECE_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the API listens on.")
    require_key: bool = Field(False, description="Ask for an API key on a loopback address too.")
    keep_keyless: bool = Field(
        False, description="On loopback, take requests without a key even when a key exists or a proxy passed them on."
    )
    oidc_providers: tuple[OidcProvider, ...] = Field(
        (),
        description="Identity providers whose tokens are taken beside API keys, as a JSON list; docs/identity.md "
        "describes the fields.",
    )
    audit_dir: Path | None = Field(
        None,
        description="Folder of the audit log, on a disk that outlives the process; every API has its own files there. "
        "While it cannot be written, requests get `audit_unavailable` and nothing is done. Empty = no audit log.",
    )
    audit_questions: bool = Field(
        False, description="Write the text of questions into the audit log; it may name patients."
    )
    webhooks: tuple[WebhookEndpoint, ...] = Field(
        (),
        description="Who is told when slides are ready or have failed, as a JSON list with secrets; only the API needs "
        "it. docs/integration.md describes the fields.",
    )
    webhook_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        20, description="Attempts at an event's delivery before it is a dead letter; 20 take about three days."
    )
    data_dir: Path = Field(Path("data"), description="All local state: store, models, Redis, logs, staging.")
    store_url: str = Field(
        "", description="Where slides and embeddings live: s3://…, gs://…, az://…; empty = DATA_DIR/store."
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="Redis or Valkey: queue, cache, events."
    )
    llm_url: str = Field("http://127.0.0.1:8101", description="vLLM; must not be reachable from outside.")
    llm_api_key: SecretStr = Field(SecretStr(""), description="The key that vLLM was started with.")
    model: str = Field(
        "demo",
        description="Name of the one model to serve; beside EYEPIECE_MODELS the one that `eyepiece llm` serves.",
    )
    models: str = Field(
        "",
        description="Models to serve side by side, the first is the default: NAME=URL of each one's vLLM, with commas, "
        "e.g. demo=http://127.0.0.1:8101,wsi-llava=http://127.0.0.1:8102. The API and all workers need the same. "
        "Empty = EYEPIECE_MODEL alone, at EYEPIECE_LLM_URL.",
    )
    worker_models: str = Field(
        "",
        description="Those of EYEPIECE_MODELS that a worker encodes for, with commas, e.g. to have a GPU for each; "
        "empty = all.",
    )
    models_dir: Path | None = Field(None, description="Installed models; empty = DATA_DIR/models.")
    device: str = Field(
        "auto",
        description="Device of the encoders: auto, cpu, cuda, cuda:1 …, or a GPU's or MIG instance's UUID (`nvidia-smi "
        "-L`); the worker sees no other GPU. `eyepiece up --workers N` takes N of them, with commas.",
    )
    tile_dtype: Literal["", "float32", "float16", "bfloat16", "float8"] = Field(
        "",
        description="Number format of the tile encoder; empty = the manifest's. Changes the encoder id: slides are "
        "encoded again. The API and all workers need the same.",
    )
    slide_attention: Literal["torch", "flash-attn"] = Field(
        "torch",
        description="Kernel of the slide encoder's attention: torch's own, or the package flash-attn's where it is "
        "installed; see docs/decisions/0032.",
    )
    tile_reduction: Literal["", "area", "dct"] = Field(
        "",
        description="How a finer level becomes tiles: area, or dct (faster, not the same numbers); empty = the "
        "manifest's. Changes the encoder id as tile_dtype does.",
    )
    worker_gpu_memory: Annotated[float, Field(ge=0, le=0.95)] = Field(
        0.0,
        description="Most of its GPU's memory that a worker takes, e.g. 0.2; 0 = no limit, and under `eyepiece up` "
        "what others on the same GPU leave.",
    )
    llm_gpu_memory: Annotated[float, Field(ge=0, le=0.95)] = Field(
        0.0,
        description="Share of its GPU's memory that vLLM takes at once; 0 = 0.9, and 0.75 where `eyepiece up` starts "
        "workers on the same GPU.",
    )
    slides_at_once: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Slides that a worker encodes at once; 0 = 2 on a GPU, which then has one's tiles while the other "
        "is opened, planned or in the slide encoder, and 1 on a CPU, where they would only share the cores.",
    )
    worker_host: str = Field(
        "127.0.0.1",
        description="Address of the worker's /livez, /readyz and /metrics. They ask for no key: beyond loopback only "
        "on a network of your own, e.g. 0.0.0.0 in a container.",
    )
    worker_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the worker's /livez, /readyz and /metrics; 0 = any free one. Under `eyepiece up "
        "--workers N` the first of N in a row.",
    )
    redis_port: int = Field(
        0, ge=0, le=65535, description="Port of the Redis that `eyepiece up` starts; 0 = any free one."
    )
    llm_port: int = Field(
        0, ge=0, le=65535, description="Port of the vLLM that `eyepiece up` starts; 0 = any free one."
    )
    tensor_parallel_size: Annotated[int, Field(ge=1)] = Field(
        1,
        description="Devices that one vLLM splits the language model over: GPUs, or parts of the CPU's cores. It must "
        "divide the model's attention heads.",
    )
    traces_url: str = Field("", description="OTLP/HTTP collector, e.g. http://collector:4318; empty = no traces.")
    crash_loop_file: Path | None = Field(
        None, description="File in which `eyepiece up` notes processes that keep exiting; set by `eyepiece up`."
    )
    log_level: str = Field("info", description="debug, info, warning or error.")

    max_upload_bytes: int = Field(64 * 2**30, description="Larger slides are refused with slide_too_large.")
    disk_reserve_bytes: int = Field(2**30, description="Uploads stop (storage_full) before less is left.")
    max_question_chars: int = Field(8_000, description="Longer questions are refused.")
    max_body_bytes: int = Field(4 * 2**20, description="Limit of every JSON request body.")
    min_body_bytes_per_s: Annotated[int, Field(ge=0)] = Field(
        4096, description="Slower request bodies, mostly uploads, are dropped (`body_too_slow`); 0 = no minimum."
    )
    body_window_s: Annotated[float, Field(gt=0)] = Field(
        30.0,
        description="Window over which a body's rate is measured; only the time spent waiting for the client counts.",
    )
    max_concurrent_questions: int = Field(
        64, description="More at once get `overloaded`. A tenant gets two thirds of this limit and of the next three."
    )
    max_concurrent_uploads: int = Field(16, description="More at once get `overloaded`.")
    upload_lifetime_s: Annotated[float, Field(gt=0)] = Field(
        86_400.0, description="A resumable upload is removed when nothing has come of it for this long."
    )
    dicom_quiet_s: Annotated[float, Field(ge=0)] = Field(
        60.0,
        description="A DICOM series of which nothing is known to be missing becomes a slide when no instance of it has "
        "come for this long.",
    )
    dicomweb_archives: tuple[DicomwebArchive, ...] = Field(
        (),
        description="DICOM archives that slides may be pulled from, as a JSON list with credentials; only the API "
        "needs it. docs/integration.md describes the fields.",
    )
    max_open_uploads_per_tenant: Annotated[int, Field(ge=1)] = Field(
        20_000, description="Resumable uploads of a tenant that are not finished; one for each file of a slide."
    )
    max_concurrent_followers: int = Field(256, description="Event streams at once; each holds a Redis connection.")
    max_connections: Annotated[int, Field(ge=1)] = Field(
        1024, description="Connections of clients at once; beyond it only /livez, /readyz and /metrics are answered."
    )
    max_connections_per_address: Annotated[int, Field(ge=0)] = Field(
        0, description="The same from one address; 0 = no limit, for behind a proxy all come from one."
    )
    head_timeout_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Time within which a request's address and headers must arrive."
    )
    write_timeout_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="A connection closes when its client has read nothing of an answer for this long."
    )
    max_concurrent_downloads: int = Field(64, description="Downloads of features at once.")
    max_queued_jobs: int = Field(10_000, description="Encode jobs waiting, all tenants together.")
    max_queued_jobs_per_tenant: int = Field(2_000, description="Encode jobs waiting of one tenant.")

    max_regions_per_slide: Annotated[int, Field(ge=1)] = Field(
        64, description="Regions kept of a slide; beyond that those go that were not used for longest."
    )
    region_wait_s: Annotated[float, Field(ge=0)] = Field(
        15.0, description="How long a question waits for its region to be made; then it gets `region_not_ready`."
    )

    max_evidence_per_slide: Annotated[int, Field(ge=1)] = Field(
        4, description="Sets of rows for evidence kept of a slide, up to `EYEPIECE_MAX_EVIDENCE_BYTES` each."
    )
    max_evidence_bytes: Annotated[int, Field(ge=1)] = Field(
        256 * 2**20, description="Largest set of rows that is made for evidence; a model of more rows has none."
    )
    evidence_requests_at_once: Annotated[int, Field(ge=1)] = Field(
        4, description="Requests to vLLM at once for one evidence; questions of others are answered beside them."
    )
    max_concurrent_evidence: Annotated[int, Field(ge=1)] = Field(
        4, description="Evidence in the making at once, all tenants together."
    )

    quota_stored_bytes: Annotated[int, Field(ge=0)] = Field(
        0, description="What a tenant may store, features and embeddings included; 0 = no limit."
    )
    quota_encodings_per_day: Annotated[int, Field(ge=0)] = Field(
        0, description="Encodings that a tenant may request per day (UTC); 0 = no limit."
    )
    tenant_quotas: dict[str, Quota] = Field(
        {},
        description="Tenants with quotas of their own, as JSON: "
        '{"lab-a": {"stored_bytes": 2000000000000, "encodings_per_day": 0}}.',
    )

    retain_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        0, description="Days after its upload that a slide is deleted with all that was made of it; 0 = never."
    )
    tenant_retain_days: dict[str, Annotated[int, Field(ge=0, le=36_500)]] = Field(
        {}, description='Tenants whose slides are kept for another time, as JSON: {"lab-a": 365}; 0 = for ever.'
    )

    rate_limits: RateLimits = Field(
        RateLimits(),
        description="What a tenant may send in a minute, as JSON: "
        '{"requests": 6000, "questions": 600, "upload_bytes": 20000000000}; 0 or left out = no limit.',
    )
    tenant_rate_limits: dict[str, RateLimits] = Field(
        {}, description='Tenants with rate limits of their own, as JSON: {"lab-a": {"questions": 60}}.'
    )
    caller_rate_limits: RateLimits = Field(
        RateLimits(),
        description="The same for each API key, and for each subject of a token, within its tenant's.",
    )

    embedding_ttl_s: int = Field(7 * 86_400, description="Lifetime of a cached embedding after its last use.")
    conversation_ttl_s: int = Field(30 * 86_400, description="Lifetime of a conversation after its last turn.")
    event_ttl_s: int = Field(86_400, description="How long progress events can be resumed.")

    job_timeout_s: int = Field(4 * 3_600, description="Wall limit of one encode attempt.")
    job_heartbeat_s: int = Field(30, description="A job silent for this long is redelivered.")
    job_sweep_s: int = Field(10, description="How often workers look for jobs whose worker died.")
    job_attempts: int = Field(5, description="Total starts of a job, including those whose worker was killed.")
    job_error_attempts: int = Field(3, description="Starts that may end in an error before the job fails.")
    reconcile_every_s: int = Field(60, description="How often stored slides without a job are queued again.")

    reader_memory_bytes: int = Field(4 * 2**30, description="Address space of the process that parses a slide.")
    reader_deadline_s: float = Field(120.0, description="A reader silent for this long is killed.")
    max_slide_dimension_px: int = Field(400_000, description="Wider or higher slides are refused.")
    max_slide_tiles: int = Field(500_000, description="Slides with more tissue tiles are refused.")

    view_readers: Annotated[int, Field(ge=1, le=64)] = Field(
        4,
        description="Slides that the API keeps open for viewers, each in a process of 0.2 to 0.5 GB; a tenant "
        "gets one less.",
    )
    view_idle_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="A slide that nobody has looked at for so long is closed."
    )

    drain_notice_s: float = Field(
        0.0,
        description="After SIGTERM the API accepts new work for this long, while load balancers notice it is leaving.",
    )
    shutdown_grace_s: int = Field(30, description="Streams may run on for this long after SIGTERM.")

    @field_validator("host", "worker_host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        """`[::1]`, as in a URL, is `::1`."""
        return host.removeprefix("[").removesuffix("]")

    @field_validator("oidc_providers")
    @classmethod
    def _each_issuer_once(cls, providers: tuple[OidcProvider, ...]) -> tuple[OidcProvider, ...]:
        if len({it.issuer for it in providers}) < len(providers):
            raise ValueError("it names an issuer twice")
        return providers

    @field_validator("webhooks")
    @classmethod
    def _each_name_once(cls, endpoints: tuple[WebhookEndpoint, ...]) -> tuple[WebhookEndpoint, ...]:
        if len({it.name for it in endpoints}) < len(endpoints):
            raise ValueError("it names an endpoint twice")
        return endpoints

    @field_validator("dicomweb_archives")
    @classmethod
    def _each_archive_once(cls, archives: tuple[DicomwebArchive, ...]) -> tuple[DicomwebArchive, ...]:
        if len({it.name for it in archives}) < len(archives):
            raise ValueError("it names an archive twice")
        return archives

    @field_validator("models")
    @classmethod
    def _addresses(cls, text: str) -> str:
        """What cannot be read is said before anything starts."""
        _model_addresses(text)
        return text

    @property
    def served_models(self) -> tuple[ModelAddress, ...]:
        """What is served; the first is the default."""
        found = _model_addresses(self.models) or (ModelAddress(self.model, ""),)
        if len(found) == 1 and not found[0].url:
            return (ModelAddress(found[0].name, self.llm_url),)
        return found

    @property
    def default_model(self) -> str:
        """The name of the model that is meant where none is named."""
        return self.served_models[0].name

    @property
    def llm_model(self) -> str:
        """The name of the model that this machine's `eyepiece llm` serves."""
        return self.model if "model" in self.model_fields_set else self.default_model

    @property
    def encoded_models(self) -> tuple[str, ...]:
        """The names of the models that a worker encodes for.

        Raises:
            ModelError: one is not served.
        """
        served = tuple(model.name for model in self.served_models)
        names = tuple(name.strip() for name in self.worker_models.split(",") if name.strip()) or served
        if unknown := set(names) - set(served):
            raise ModelError(f"EYEPIECE_WORKER_MODELS names {sorted(unknown)[0]!r}, and EYEPIECE_MODELS does not.")
        return names

    @property
    def models_to_start(self) -> tuple[str, ...]:
        """The names of the models of which nobody said where their vLLM is; `eyepiece up` starts it."""
        found = _model_addresses(self.models) or (ModelAddress(self.model, ""),)
        said = len(found) == 1 and "llm_url" in self.model_fields_set and self.llm_url
        return () if said else tuple(model.name for model in found if not model.url)

    @property
    def redis_is_external(self) -> bool:
        """Whether somebody said which Redis; if not, `eyepiece up` starts one."""
        return "redis_url" in self.model_fields_set and bool(self.redis_url.get_secret_value())

    @property
    def llm_is_external(self) -> bool:
        """Whether somebody said which vLLM each model has; if not, `eyepiece up` starts some."""
        return not self.models_to_start

    @property
    def quota(self) -> Quota:
        """What a tenant may that has no quota of its own."""
        return Quota(stored_bytes=self.quota_stored_bytes, encodings_per_day=self.quota_encodings_per_day)

    @property
    def installed_models_dir(self) -> Path:
        """Where `model` is looked up."""
        return self.models_dir or self.data_dir / "models"

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return self.host in LOOPBACK_HOSTS


def _model_addresses(text: str) -> tuple[ModelAddress, ...]:
    """The models of EYEPIECE_MODELS, in order.

    Raises:
        ValueError: not `NAME=URL` or `NAME` with commas, or a name comes twice.
    """
    given = [part.strip().partition("=") for part in text.split(",")] if text.strip() else []
    found = tuple(ModelAddress(name.strip(), url.strip()) for name, _, url in given)
    for model, (_, sign, _) in zip(found, given, strict=True):
        if not re.fullmatch(NAME_PATTERN, model.name) or (sign and not model.url.startswith(("http://", "https://"))):
            raise ValueError("write NAME=URL for each model, with commas, e.g. demo=http://127.0.0.1:8101")
    if len({model.name for model in found}) < len(found):
        raise ValueError("it names a model twice")
    return found


LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
