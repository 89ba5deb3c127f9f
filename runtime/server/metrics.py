"""What the server counts, for Prometheus: requests, slots and queue, tokens, times, cache hits, memory."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..engine.engine import Engine
from ..engine.handle import Handle

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_S = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_TOKEN_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1.0)


class _Load(Collector):
    """The engine's load, at the moment when it is asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily]:
        load = self._engine.load
        yield GaugeMetricFamily("thirteen_slots", "Answers that can run at once.", self._engine.profile.slots)
        yield GaugeMetricFamily("thirteen_slots_used", "Answers that are running.", load.running)
        yield GaugeMetricFamily("thirteen_queue", "Answers that wait for a slot.", load.waiting)


class Metrics:
    """Counters of one server."""

    def __init__(self, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_Load(engine))
        ProcessCollector(registry=registry)  # resident memory among others, on Linux
        self._requests = Counter(
            "thirteen_requests", "Responses begun.", ("path", "status"), registry=registry
        )
        self._answers = Counter(
            "thirteen_answers", "Answers that ended, by the reason.", ("stop_reason",), registry=registry
        )
        self._prompt = Counter("thirteen_prompt_tokens", "Tokens of prompts.", registry=registry)
        self._cached = Counter(
            "thirteen_cached_tokens", "Tokens of prompts that the prefix cache had.", registry=registry
        )
        self._hits = Counter(
            "thirteen_cache_hits", "Answers whose prompt the prefix cache had some of.", registry=registry
        )
        self._output = Counter("thirteen_completion_tokens", "Tokens of answers.", registry=registry)
        self._first = Histogram(
            "thirteen_first_token_seconds",
            "From a request to its first token.",
            buckets=_FIRST_S,
            registry=registry,
        )
        self._token = Histogram(
            "thirteen_token_seconds",
            "Mean time of a token after the first, one for each answer.",
            buckets=_TOKEN_S,
            registry=registry,
        )

    def count(self, path: str, status: int) -> None:
        """Count a response, by the path of its route."""
        self._requests.labels(path, str(status)).inc()

    def count_answer(self, handle: Handle) -> None:
        """Count an answer that has ended."""
        if handle.failed:
            self._answers.labels("failed").inc()
            return
        end = handle.wait()
        self._answers.labels(end.stop_reason.value).inc()
        if not end.usage.sampled_tokens:
            return
        self._prompt.inc(end.usage.prompt_tokens)
        self._cached.inc(end.usage.cached_tokens)
        self._hits.inc(end.usage.cached_tokens > 0)
        self._output.inc(end.usage.completion_tokens)
        self._first.observe(end.timings.first_token_s)
        if rate := end.timings.decode_tokens_per_s(end.usage):
            self._token.observe(1 / rate)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
