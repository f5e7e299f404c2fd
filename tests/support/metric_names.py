"""The metrics that exist, and those that a PromQL expression asks for."""

import re

from prometheus_client import CollectorRegistry

from server.telemetry.metrics import Metrics, TileEncoderMetrics, WorkerMetrics

# vllm/v1/metrics/loggers.py and perf.py of vLLM 0.32.0; counters get `_total` from prometheus-client.
VLLM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:mm_cache_queries_total",
    "vllm:mm_cache_hits_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
}
# What HAProxy 2.6's own exporter sends (test_monitoring asks one), section 9.4 of its configuration manual.
HAPROXY = {
    "haproxy_backend_active_servers",
    "haproxy_backend_redispatch_warnings_total",
    "haproxy_server_check_up_down_total",
    "haproxy_server_sessions_total",
    "haproxy_server_status",
}
# Prometheus makes these itself; the last two are the kubelet's (kubernetes.io/docs/reference/instrumentation/metrics).
OTHERS = {"up", "ALERTS", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}

_NOT_METRICS = {"by", "without", "on", "ignoring", "and", "or", "unless", "offset", "bool", "group_left", "group_right"}
_LABEL_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NOISE = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]')
_NAMES = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])")


class _Counters:
    busy_s = idle_s = 0.0
    padded_tiles = 0
    pass_tiles = 0
    refused_passes = 0


def own_metrics() -> set[str]:
    """The names of all samples that API and worker could send; labelled ones that nothing has touched included."""
    registry = CollectorRegistry()
    Metrics(registry)
    worker = CollectorRegistry()
    WorkerMetrics(worker)
    worker.register(TileEncoderMetrics([_Counters()]))
    families = [family for each in (registry, worker) for family in each.collect()]
    return {name for family in families for name in _samples(family.name, family.type)}


def _samples(name: str, kind: str) -> set[str]:
    endings = {
        "counter": ("_total", "_created"),
        "histogram": ("_bucket", "_sum", "_count", "_created"),
        "info": ("_info",),
    }
    return {name + ending for ending in endings.get(kind, ("",))}


def asked_for(expression: str) -> set[str]:
    """The metrics in a PromQL expression."""
    bare = _NOISE.sub(" ", _LABEL_LISTS.sub(" ", expression))
    return set(_NAMES.findall(bare)) - _NOT_METRICS


def unknown_metrics(expression: str) -> set[str]:
    """What an expression asks for and nobody sends."""
    return asked_for(expression) - own_metrics() - VLLM - HAPROXY - OTHERS
