"""The fastest settings on this processor, by timing the model itself: attention, KV type, threads.

Flash attention never stores the scores of a query with all keys. Standard attention stores them, and computes
them as products of matrices, for which some processors have faster kernels. Which one wins, and whether a KV
cache in bfloat16 is faster than one in float16, differs by more than half between processors; docs/engine.md
has figures.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import product
from time import perf_counter, process_time

from ..llama.context import Context, Span
from ..llama.model import Model
from ..machine.threads import usable_threads
from ..native.compute_thread import COMPUTE_THREAD
from ..native.settings import Settings
from .candidates import Candidates
from .tuning import ANSWER_TOKENS, PROMPT_TOKENS, Trial, Tuning

BUDGET_S = 1.8  # of a measurement, without making the contexts
_DEPTH = PROMPT_TOKENS + ANSWER_TOKENS // 2  # mean of the tokens of an ordinary answer
_SHALLOW = 8  # tokens in the KV cache at the first of two depths
_PREFILL_MIN, _PREFILL_MAX = 32, 192  # tokens of a measured prefill
_STEPS, _STEPS_MIN = 6, 2  # decode steps, of which the fastest counts: disturbances only slow down
_SHARE_MIN = 0.9  # of the processors' time; with less, other programs have disturbed the measurement
_HELD_UP_S, _HELD_UP_SHARE = 0.3, 0.7  # a measurement is given up after so long with so little of their time


def thread_counts(cores: int, processors: int) -> tuple[int, ...]:
    """Numbers of threads to try beside one per core: half as many, and one per hardware thread."""
    return tuple(count for count in (max(1, cores // 2), processors) if count != cores)


def measure_settings(candidates: Candidates, model: Model, budget_s: float = BUDGET_S) -> Tuning:
    """Time a prefill and decode steps with each open way, then numbers of threads.

    Args:
        candidates: what is open.
        model: the loaded model.
        budget_s: seconds that this may take; the more, the longer the measured prompts.

    Raises:
        FileError: the computation failed.
        RequestError: the contexts do not fit in memory.
    """
    return COMPUTE_THREAD.call(lambda: _Measurement(candidates, model, budget_s).run())


class _DisturbedError(Exception):
    """Other programs take so much of the processors that nothing can be measured."""


class _Measurement:
    """The contexts of the open ways, and their times."""

    def __init__(self, candidates: Candidates, model: Model, budget_s: float) -> None:
        self._ways, self._threads = candidates.ways, candidates.threads
        self._model, self._budget_s = model, budget_s
        usual = self._ways[0]
        self._slots = usual.slots
        self._using = usual.threads  # threads that compute at the moment
        self._wall_s = self._granted_s = self._wanted_s = 0.0  # of all steps so far
        longest = min(_PREFILL_MAX + _STEPS, usual.context)
        self._longest = max(1, longest - _STEPS)
        vocabulary = model.vocabulary_size
        self._prompt = tuple(token % vocabulary for token in range(1, self._longest + 1))

    def run(self) -> Tuning:
        best = usual = self._ways[0]
        trials, cost = list[Trial](), partial(Trial.cost, usual=usual)
        with ExitStack() as loaded, suppress(_DisturbedError):
            contexts = [loaded.enter_context(Context(self._model, self._small(way))) for way in self._ways]
            self._end = perf_counter() + self._budget_s
            trials = self._time_ways(contexts)
            fastest = min(trials, key=cost)
            trials += [*self._vary_threads(contexts[trials.index(fastest)], fastest)]
            best = min(trials, key=cost).settings
        return Tuning(best if self._quiet else usual, tuple(trials), self._quiet)

    def _small(self, way: Settings) -> Settings:
        """A way with no more memory than is measured; the threads are those that are asked for."""
        batch = max(self._slots, min(way.batch, self._longest))
        longest = min(self._longest + _STEPS, self._model.context_trained)
        return replace(way, context=longest, batch=batch, adaptive_threads=False)

    @property
    def _quiet(self) -> bool:
        """Whether the threads got the processors; a slow model alone is no disturbance."""
        return self._granted_s >= _SHARE_MIN * self._wanted_s

    @property
    def _late(self) -> bool:
        return perf_counter() > self._end

    def _time_ways(self, contexts: Sequence[Context]) -> list[Trial]:
        """Time all ways, in turns, so that disturbances hit all of them."""
        first = min(_SHALLOW, self._longest)
        for context in contexts:  # the first batches also read the weights and fill the processor's caches
            self._prefill_s(context, 0, first)
        all_s = self._decode_s(contexts[0], 0, self._slots)
        rate_s = min(self._prefill_s(context, 0, first) / first for context in contexts)
        one_s = self._decode_s(contexts[0], first, 1)
        tokens, steps = self._plan(len(contexts), rate_s, 2 * one_s + all_s)

        def decode_s(start: int, slots: int) -> list[float]:
            return _fastest(steps, [partial(self._decode_s, context, start, slots) for context in contexts])

        shallow = decode_s(first, 1)
        prefill = [self._prefill_s(context, 0, tokens) / tokens for context in contexts]
        for context in contexts:
            state = context.save(0)
            for slot in range(1, self._slots):
                context.restore(slot, state, tokens)
        deep, together = decode_s(tokens, 1), decode_s(tokens, self._slots)
        self._tokens = tokens
        times = zip(self._ways, prefill, shallow, deep, together, strict=True)
        trials = []
        for way, prompt_s, near_s, far_s, all_s in times:
            slope = max(0.0, far_s - near_s) / max(1, tokens - first)
            further = slope * max(0, _DEPTH - tokens)  # attention grows with the depth
            trials.append(Trial(way, prompt_s, far_s + further, all_s + self._slots * further))
        return trials

    def _plan(self, ways: int, rate_s: float, step_s: float) -> tuple[int, int]:
        """Tokens of a prefill and number of decode steps, of both depths and all slots, within the budget."""
        steps_s = ways * step_s
        steps = max(1, min(_STEPS, int(self._budget_s / 3 / steps_s)))
        left_s = self._end - perf_counter() - steps * steps_s
        tokens = int(left_s / ((ways + 2) * rate_s * 0.75))  # longer batches take less a token
        return min(self._longest, max(_PREFILL_MIN, min(tokens, _PREFILL_MAX))), steps

    def _vary_threads(self, context: Context, best: Trial) -> Iterator[Trial]:
        """Other numbers of threads for decode, and for prefill."""
        if self._threads or self._late:
            return
        usual, tokens = best.settings.threads, min(_PREFILL_MIN, self._tokens)
        measures = [
            partial(self._decode_s, context, self._tokens, 1),
            partial(self._decode_s, context, self._tokens, self._slots),
            partial(self._prefill_s, context, self._tokens - tokens, tokens),
        ]
        times = {}
        for count in (usual, *thread_counts(usual, usable_threads())):
            context.set_threads(count, count)
            self._using = count
            _fastest(1, measures[:1])  # OpenMP makes its team
            times[count] = _fastest(_STEPS_MIN, measures)
            if self._late:
                break
        context.set_threads(usual, usual)
        self._using = usual
        for decode, prefill in product(times, times):
            if decode == prefill == usual:
                continue
            yield Trial(
                replace(best.settings, threads=decode, prefill_threads=prefill),
                prefill_s=best.prefill_s * times[prefill][2] / times[usual][2],
                decode_s=best.decode_s * times[decode][0] / times[usual][0],
                together_s=best.together_s * times[prefill][1] / times[usual][1],
            )

    def _prefill_s(self, context: Context, start: int, tokens: int) -> float:
        """Seconds of a prefill in slot 0 from position `start` on."""
        context.clear(0, start)
        step = min(_PREFILL_MAX, context.settings.batch)
        end = start + tokens
        spans = [Span(0, at, self._prompt[at : min(at + step, end)], 1) for at in range(start, end, step)]
        return self._seconds(lambda: [context.decode([span]) for span in spans])

    def _decode_s(self, context: Context, start: int, slots: int) -> float:
        """Seconds of a decode step in the first slots, at position `start`."""
        for slot in range(slots):
            context.clear(slot, start)
        spans = [Span(slot, start, self._prompt[:1], 1) for slot in range(slots)]
        return self._seconds(lambda: context.decode(spans))

    def _seconds(self, compute: Callable[[], object]) -> float:
        """Seconds that something takes.

        Raises:
            _DisturbedError: other programs hold the measurement up.
        """
        began, granted = perf_counter(), process_time()
        compute()
        seconds = perf_counter() - began
        self._wall_s += seconds
        self._granted_s += process_time() - granted
        self._wanted_s += self._using * seconds
        held_up = self._wall_s > _HELD_UP_S and self._granted_s < _HELD_UP_SHARE * self._wanted_s
        if held_up or self._wall_s > 2 * self._budget_s:
            raise _DisturbedError
        return seconds


def _fastest(times: int, measures: Sequence[Callable[[], float]]) -> list[float]:
    """The least result of each measure, taken in turns."""
    rounds = [[measure() for measure in measures] for _ in range(times)]
    return [min(results) for results in zip(*rounds, strict=True)]
