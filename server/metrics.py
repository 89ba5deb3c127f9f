"""Prometheus metrics: responses, slots and queue, tokens, latencies, prefix cache hits, process memory."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ..runtime.answer import SequenceEnd
from ..runtime.engine.engine import Engine

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_TOKEN_BUCKETS_S = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1.0)


class Metrics:
    """Metrics of one server."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        """Start at zero; `engine` returns the one that answers new requests."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # resident memory, CPU time and open files, on Linux
        gauge, counter = partial(Gauge, registry=registry), partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        slots, used = gauge("thirteen_slots", "Slots."), gauge("thirteen_slots_used", "Running requests.")
        slots.set_function(lambda: engine().plan.settings.slots)
        used.set_function(lambda: engine().load.running)
        gauge("thirteen_queue", "Waiting requests.").set_function(lambda: engine().load.waiting)
        labels = ("path", "status", "key")
        self._requests = counter("thirteen_requests", "Requests by path, status and key.", labels)
        self._answers = counter("thirteen_answers", "Finished answers by stop reason.", ("stop_reason",))
        self._prompt_tokens = counter("thirteen_prompt_tokens", "Prompt tokens by key.", ("key",))
        self._completion_tokens = counter("thirteen_completion_tokens", "Completion tokens by key.", ("key",))
        self._cached_tokens = counter("thirteen_cached_tokens", "Prompt tokens found in the prefix cache.")
        self._cache_hits = counter("thirteen_cache_hits", "Answers whose prompt had a prefix in the cache.")
        self._first_token_s = histogram(
            "thirteen_first_token_seconds", "Time to first token.", buckets=_FIRST_TOKEN_BUCKETS_S
        )
        about = "Mean time per token after the first, one observation per answer."
        self._token_s = histogram("thirteen_token_seconds", about, buckets=_TOKEN_BUCKETS_S)

    def count_request(self, path: str, status: int, key: str, embedded_tokens: int, failed: int) -> None:
        """Count a request that has ended, with the path of its route and its answers that failed."""
        self._requests.labels(path, str(status), key).inc()
        self._prompt_tokens.labels(key).inc(embedded_tokens)
        if failed:
            self._answers.labels("failed").inc(failed)

    def count_answer(self, end: SequenceEnd, key: str) -> None:
        """Count an answer that has ended."""
        self._answers.labels(end.stop_reason.value).inc()
        if not end.usage.sampled_tokens:
            return
        self._prompt_tokens.labels(key).inc(end.usage.prompt_tokens)
        self._completion_tokens.labels(key).inc(end.usage.completion_tokens)
        self._cached_tokens.inc(end.usage.cached_tokens)
        self._cache_hits.inc(end.usage.cached_tokens > 0)
        self._first_token_s.observe(end.timings.first_token_s)
        if rate := end.timings.token_rates(end.usage)["decode_tokens_per_s"]:
            self._token_s.observe(1 / rate)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)
