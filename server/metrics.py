"""Prometheus metrics: prefix `eyepiece_`, base units, no tenant, slide or user labels.

Each process has its own registry, passed in: one process a container, so nothing is summed over files.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """What the API measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "eyepiece_http_requests_total", "Requests.", ["route", "method", "status"], registry=registry
        )
        self.upload_bytes = Counter("eyepiece_upload_bytes_total", "Bytes of slides received.", registry=registry)
        self.uploads = Counter("eyepiece_uploads_total", "Uploads.", ["outcome"], registry=registry)
        self.encode_jobs = Counter(
            "eyepiece_encode_jobs_enqueued_total", "Encode jobs put into the queue.", registry=registry
        )
        self.embedding_reads = Counter(
            "eyepiece_embedding_cache_reads_total",
            "Embeddings read, by the tier that had them.",
            ["tier"],
            registry=registry,
        )
        self.embedding_cache_write_errors = Counter(
            "eyepiece_embedding_cache_write_errors_total",
            "Embeddings Redis would not take.",
            registry=registry,
        )
        self.questions = Counter("eyepiece_questions_total", "Questions.", ["outcome"], registry=registry)
        self.questions_running = Gauge("eyepiece_questions_running", "Questions being answered.", registry=registry)
        self.time_to_first_token_s = Histogram(
            "eyepiece_time_to_first_token_seconds",
            "From the question's arrival to its first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.answer_s = Histogram(
            "eyepiece_answer_seconds",
            "From the question's arrival to its last token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.cache_s = Histogram(
            "eyepiece_embedding_read_seconds",
            "Reading the embedding for a question.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.slide_tokens_lost = Counter(
            "eyepiece_slide_tokens_lost_total",
            "Answers that ended in an error because vLLM did not use the slide tokens it was sent.",
            registry=registry,
        )
        self.dependency_up = Gauge(
            "eyepiece_dependency_up", "Whether a dependency answers.", ["dependency"], registry=registry
        )
        self.workers_ready = Gauge("eyepiece_workers_ready", "Warm encoder workers.", registry=registry)
        self.jobs_queued = Gauge("eyepiece_jobs_queued", "Jobs waiting.", ["priority"], registry=registry)
        self.jobs_active = Gauge("eyepiece_jobs_active", "Jobs running.", ["priority"], registry=registry)
        self.oldest_queued_s = Gauge(
            "eyepiece_jobs_oldest_queued_seconds",
            "Age of the first waiting job.",
            ["priority"],
            registry=registry,
        )
        self.reconciled = Counter(
            "eyepiece_slides_reconciled_total",
            "Stored slides without embedding or job.",
            ["action"],
            registry=registry,
        )


class WorkerMetrics:
    """What an encoder worker measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.jobs = Counter("eyepiece_encode_jobs_total", "Encode attempts that ended.", ["outcome"], registry=registry)
        self.tiles = Counter("eyepiece_tiles_encoded_total", "Tiles encoded.", registry=registry)
        self.encode_s = Histogram(
            "eyepiece_encode_seconds",
            "Time of one slide in each stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.ready = Gauge("eyepiece_worker_ready", "1 while warm and connected to the queue.", registry=registry)
