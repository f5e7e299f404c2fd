"""Prometheus metrics: prefix `eyepiece_`, base units, no tenant, slide or user labels.

Each process has its own registry, passed in: one process a container, so nothing is summed over files.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


def show_build(registry: CollectorRegistry) -> None:
    """`eyepiece_build_info{version}` = 1, and `process_…`: memory, CPU seconds, open files, time of the start."""
    ProcessCollector(registry=registry)
    Info("eyepiece_build", "What runs here.", registry=registry).info({"version": version("eyepiece")})


class Metrics:
    """What the API measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        show_build(registry)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=registry)
        self.requests = counter("eyepiece_http_requests_total", "Requests.", ["route", "method", "status"])
        self.upload_bytes = counter("eyepiece_upload_bytes_total", "Bytes of slides received.")
        self.uploads = counter("eyepiece_uploads_total", "Uploads.", ["outcome"])
        self.encode_jobs = counter("eyepiece_encode_jobs_enqueued_total", "Encode jobs put into the queue.", ["model"])
        self.embedding_reads = counter(
            "eyepiece_embedding_cache_reads_total", "Embeddings read, by the tier that had them.", ["tier"]
        )
        self.embedding_cache_write_errors = counter(
            "eyepiece_embedding_cache_write_errors_total", "Embeddings that Redis refused."
        )
        self.questions = counter("eyepiece_questions_total", "Questions.", ["model", "outcome"])
        self.questions_running = gauge("eyepiece_questions_running", "Questions being answered.", ["model"])
        self.time_to_first_token_s = seconds(
            "eyepiece_time_to_first_token_seconds", "From the question's arrival to its first token.", ["model"]
        )
        self.language_model_first_token_s = seconds(
            "eyepiece_language_model_first_token_seconds",
            "From the embedding at hand to the first token; vLLM's own metrics split it into queue and prefill.",
            ["model"],
        )
        self.answer_s = seconds("eyepiece_answer_seconds", "From the question's arrival to its last token.", ["model"])
        self.cache_s = seconds("eyepiece_embedding_read_seconds", "Reading the embedding for a question.")
        self.slide_tokens_lost = counter(
            "eyepiece_slide_tokens_lost_total",
            "Answers that ended in an error because vLLM did not use the slide tokens it was sent.",
            ["model"],
        )
        self.dependency_up = gauge("eyepiece_dependency_up", "Whether a dependency answers.", ["dependency"])
        self.model_up = gauge("eyepiece_model_up", "Whether the model's vLLM makes tokens.", ["model"])
        self.store_free_bytes = gauge(
            "eyepiece_store_free_bytes", "Room in a slide store on local disk; absent for a bucket."
        )
        self.workers_ready = gauge(
            "eyepiece_workers_ready", "Warm encoder workers that encode for the model.", ["model"]
        )
        self.jobs_queued = gauge(
            "eyepiece_jobs_queued",
            "Jobs waiting; the priority of regions is `region`, of evidence `evidence`.",
            ["model", "priority"],
        )
        self.jobs_active = gauge("eyepiece_jobs_active", "Jobs running.", ["model", "priority"])
        self.oldest_queued_s = gauge(
            "eyepiece_jobs_oldest_queued_seconds", "Age of the first waiting job.", ["model", "priority"]
        )
        self.view_tiles = counter("eyepiece_view_tiles_total", "Tiles asked for by viewers.", ["outcome"])
        self.view_tile_s = seconds(
            "eyepiece_view_tile_seconds", "From a viewer's request to its tile, the start of a reader included."
        )
        self.view_pictures_waiting = gauge(
            "eyepiece_view_pictures_waiting", "Tiles and thumbnails that wait for a reader."
        )
        self.slide_readers_open = gauge("eyepiece_slide_readers_open", "Slides that are kept open for viewers.")
        self.slide_readers_started = counter(
            "eyepiece_slide_readers_started_total", "Readers of slides started for viewers."
        )
        self.webhook_deliveries = counter(
            "eyepiece_webhook_deliveries_total",
            "Attempts to deliver a webhook: delivered, retried later, or dead after the last one.",
            ["outcome"],
        )
        self.webhooks_waiting = gauge("eyepiece_webhooks_waiting", "Webhooks that are not delivered yet.")
        self.webhooks_dead = gauge("eyepiece_webhooks_dead", "Dead letters that nobody has replayed.")
        self.reconciled = counter(
            "eyepiece_slides_reconciled_total", "Stored slides without embedding or job.", ["action"]
        )


class WorkerMetrics:
    """What an encoder worker measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        show_build(registry)
        self.jobs = Counter(
            "eyepiece_encode_jobs_total", "Encode attempts that ended.", ["model", "outcome"], registry=registry
        )
        self.regions = Counter(
            "eyepiece_region_jobs_total",
            "Attempts to make a region's embedding that ended.",
            ["model", "outcome"],
            registry=registry,
        )
        self.evidence = Counter(
            "eyepiece_evidence_jobs_total",
            "Attempts to make the rows for evidence that ended.",
            ["model", "outcome"],
            registry=registry,
        )
        self.tiles = Counter(
            "eyepiece_tiles_encoded_total", "Tiles encoded, or regions of a model of levels.", registry=registry
        )
        self.tiles_resumed = Counter(
            "eyepiece_tiles_resumed_total",
            "Tiles whose features an earlier attempt had kept, or regions.",
            registry=registry,
        )
        self.slides_opened = Counter(
            "eyepiece_slides_opened_total",
            "Slides opened, by the reader that reads them and why it does.",
            ["reader", "reason"],
            registry=registry,
        )
        self.encode_s = Histogram(
            "eyepiece_encode_seconds",
            "Time of one slide in each stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.ready = Gauge("eyepiece_worker_ready", "1 while warm and connected to the queue.", registry=registry)


class TileEncoderCounters(Protocol):
    """What the tile encoder's thread counts (`encoders.tile_encoder.batcher`), in seconds and tiles since its start."""

    @property
    def busy_s(self) -> float:
        """With a batch in hand."""

    @property
    def idle_s(self) -> float:
        """Waiting for tiles."""

    @property
    def padded_tiles(self) -> int:
        """Places in batches that no tile filled."""

    @property
    def pass_tiles(self) -> int:
        """Tiles that the device computes at once."""

    @property
    def refused_passes(self) -> int:
        """Passes that the device had too little memory for."""


class TileEncoderMetrics(Collector):
    """Reads the tile encoders' counters when they are asked for, summed; `registry.register(…)` it."""

    def __init__(self, counters: Sequence[TileEncoderCounters]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """The counters as they are now."""
        prefix, counted = "eyepiece_tile_encoder", self._counters
        busy_s, idle_s = sum(one.busy_s for one in counted), sum(one.idle_s for one in counted)
        padded, refused = sum(one.padded_tiles for one in counted), sum(one.refused_passes for one in counted)
        yield CounterMetricFamily(f"{prefix}_busy_seconds", "Time with a batch in hand.", busy_s)
        yield CounterMetricFamily(f"{prefix}_idle_seconds", "Time without tiles to encode.", idle_s)
        yield CounterMetricFamily(f"{prefix}_padded_tiles", "Places left empty in batches.", padded)
        too_large = "Passes that the device had too little memory for."
        yield CounterMetricFamily(f"{prefix}_out_of_memory", too_large, refused)
        pass_tiles = sum(one.pass_tiles for one in counted)
        yield GaugeMetricFamily(f"{prefix}_pass_tiles", "Tiles computed at once.", pass_tiles)
