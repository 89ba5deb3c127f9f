"""The fastest way to compute on this processor, by timing the model itself: attention, KV type, threads.

Flash attention never stores the scores of a query with all keys. Standard attention stores them, and computes
them as products of matrices, for which some processors have faster kernels. Which one wins, and whether a KV
cache in bfloat16 is faster than one in float16, differs by more than half between processors; docs/engine.md
has figures.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from itertools import product
from math import sqrt
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import llama_cpp
from gguf import GGML_QUANT_SIZES

from ...errors import ModelFileError, OutputError, ThirteenError
from ...files.atomic_write import atomic_write
from ...files.cache_folder import cache_dir
from ...files.gguf.header import Header
from ...files.gguf.model_shape import read_model_shape
from ...files.processors import multiplies_bf16, processor_name, usable_processors
from ..profile import DEFAULT_KV, KV_TYPES, QUANTIZED_KV, Profile
from ..threads import default_threads
from .compute_thread import COMPUTE_THREAD
from .context import Context, ContextParams, Span
from .memory_estimate import fits_in_memory
from .model import Model

BUDGET_S = 2.6  # of a measurement, without making the contexts
# An ordinary question: the tokens of its prompt, those of its answer, and the mean depth of these.
_PROMPT_TOKENS, _ANSWER_TOKENS = 200, 96
_DEPTH = _PROMPT_TOKENS + _ANSWER_TOKENS // 2
_SHALLOW = 8  # tokens in the KV cache at the first of two depths
_PREFILL_MIN, _PREFILL_MAX = 32, 192  # tokens of a measured prefill
_STEPS, _STEPS_MIN = 6, 2  # decode steps, of which the fastest counts: disturbances only slow down
_SMALL_MICRO_BATCH = 64
_GAIN_MIN = 0.05  # of another setting than the default, which takes less memory, or fewer surprises
_SHARE_MIN = 0.9  # of the processors' time; with less, other programs have disturbed the measurement
_HELD_UP_S, _HELD_UP_SHARE = 0.3, 0.7  # a measurement is given up after so long with so little of their time
_SAVED = "compute-{}.json"


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """Settings that change the speed, and otherwise only the last bits of the logits.

    Attributes:
        flash_attention: whether attention is computed without storing its scores; None, with layers on a GPU,
            leaves it to llama.cpp.
        kv: type of the KV cache.
        threads: threads for batches of one token.
        prefill_threads: threads for larger batches.
        micro_batch: maximum tokens computed at once.
    """

    flash_attention: bool | None
    kv: str
    threads: int
    prefill_threads: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Trial:
    """Measured times with some settings.

    Attributes:
        settings: how it was computed.
        prefill_s: seconds for a prompt token.
        decode_s: seconds for a token of one sequence, in an ordinary question.
        together_s: seconds for a token of every slot.
    """

    settings: ComputeSettings
    prefill_s: float
    decode_s: float
    together_s: float

    def question_s(self, slots: int) -> float:
        """Geometric mean of the seconds of one ordinary question, and of one in every slot."""
        prompt_s = _PROMPT_TOKENS * self.prefill_s
        one_s, all_s = prompt_s + _ANSWER_TOKENS * self.decode_s, slots * prompt_s
        return float(sqrt(one_s * (all_s + _ANSWER_TOKENS * self.together_s)))


@dataclass(frozen=True, slots=True)
class Tuning:
    """Result of a measurement.

    Attributes:
        settings: the best ones.
        trials: all that were measured.
        slots: sequences that run at once.
        quiet: whether no other program has disturbed the measurement.
    """

    settings: ComputeSettings
    trials: tuple[Trial, ...]
    slots: int
    quiet: bool


def choose_settings(profile: Profile, threads: int | None, model: Model) -> ComputeSettings:
    """Choose what the profile and the caller leave open.

    The first call for a processor, build, model shape and profile measures, in at most three seconds. The
    choice is saved in the cache folder, unless other programs have disturbed it.

    Args:
        profile: what an engine allocates. With layers on a GPU nothing is measured: a short measurement would
            mostly time the compilation of its kernels.
        threads: threads that compute; None to measure.
        model: the loaded model.

    Raises:
        ModelFileError: the computation failed.
        RequestError: the contexts do not fit in memory.
    """
    settings = known_settings(profile, threads, model.header)
    if settings is None:
        tuning = measure_settings(profile, threads, model)
        settings = tuning.settings
        if tuning.quiet:
            with suppress(ThirteenError):  # else the next process measures again
                save_tuning(tuning, profile, threads, model.header)
    return settings


def limit_settings(profile: Profile, header: Header, threads: int) -> Profile:
    """Decide what is open for memory's sake: flash attention, and then a KV cache in q8_0.

    This is for before the model is loaded: afterwards, the memory of its weights is no longer available.
    """
    if profile.gpu_layers:
        return profile
    options = [
        replace(profile, flash_attention=flash, kv=kv)
        for flash, kv in ((False, profile.kv), (True, profile.kv), (True, "q8_0"))
        if profile.flash_attention in {None, flash} and profile.kv in {None, kv} and _holds(header, kv)
    ]
    fitting = [one for one in options if fits_in_memory(header, one, threads)]
    if not fitting or all(one in fitting for one in options if one.kv == profile.kv):
        return profile  # nothing helps, or nothing is short
    return fitting[0]


def known_settings(profile: Profile, threads: int | None, header: Header) -> ComputeSettings | None:
    """The settings if the profile or a saved choice decides them; None if they must be measured."""
    ways = _ways(profile, threads, header)
    if profile.gpu_layers:
        return replace(ways[0], flash_attention=profile.flash_attention)
    if len(ways) == 1 and threads and profile.micro_batch:
        return ways[0]
    with suppress(OSError, OutputError, ValueError, KeyError, TypeError):
        key = _key(profile, threads, header)
        return _parse(json.loads(_choice_file(key).read_bytes())["settings"])
    return None


def save_tuning(tuning: Tuning, profile: Profile, threads: int | None, header: Header) -> Path:
    """Save a choice for all engines with such a model and profile.

    Returns:
        The file.

    Raises:
        OutputError: it cannot be written.
        ModelFileError: the header has no valid shape.
    """
    key = _key(profile, threads, header)
    path = _choice_file(key)
    with atomic_write(path) as file:
        file.write(json.dumps(key | asdict(tuning), indent=1).encode() + b"\n")
    return path


def saved_settings() -> list[ComputeSettings]:
    """All choices that were measured on this processor with this build."""
    chosen, environment = list[ComputeSettings](), _environment()
    with suppress(OutputError):  # no cache folder
        for path in cache_dir().glob(_SAVED.format("*")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads(path.read_bytes())
                if all(found[name] == value for name, value in environment.items()):
                    chosen.append(_parse(found["settings"]))
    return chosen


def _parse(value: Any) -> ComputeSettings:
    settings = ComputeSettings(**value)
    counts = (settings.threads, settings.prefill_threads, settings.micro_batch)
    if settings.kv not in KV_TYPES or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(value)
    return replace(settings, flash_attention=bool(settings.flash_attention))


def _key(profile: Profile, threads: int | None, header: Header) -> dict[str, Any]:
    """Everything that the choice depends on."""
    shape = read_model_shape(header, ModelFileError)
    return {
        **_environment(),
        **{name: getattr(shape, name) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim")},
        **{
            name: getattr(profile, name)
            for name in ("slots", "batch", "flash_attention", "kv", "micro_batch")
        },
        "repack": profile.repack,
        "given_threads": threads,
        "default_threads": default_threads(),
    }


def _environment() -> dict[str, str]:
    return {
        "processor": processor_name(),
        "llama_cpp_python": version("llama-cpp-python"),
        "features": llama_cpp.llama_print_system_info().decode("utf-8", "replace").strip(" |\n"),
    }


def _choice_file(key: dict[str, Any]) -> Path:
    return cache_dir() / _SAVED.format(sha256(json.dumps(key).encode()).hexdigest()[:16])


def _holds(header: Header, kv: str | None) -> bool:
    """Whether the model's heads are whole blocks of a type of the KV cache."""
    block = GGML_QUANT_SIZES[KV_TYPES[kv or DEFAULT_KV]][0]
    return not read_model_shape(header, ModelFileError).head_dim % block


def _ways(profile: Profile, threads: int | None, header: Header) -> list[ComputeSettings]:
    """The combinations of attention and KV type that are open, the default first."""
    count = threads or default_threads()
    kinds = [profile.kv] if profile.kv else [DEFAULT_KV, *(["bf16"] if multiplies_bf16() else [])]
    ways = [
        (flash, kv)
        for kv, flash in product(kinds, (True, False))
        if profile.flash_attention in {None, flash} and (flash or kv not in QUANTIZED_KV)
    ]
    ways = ways or [(bool(profile.flash_attention), kinds[0])]  # which the context refuses
    return [
        ComputeSettings(flash, kv, count, count, replace(profile, flash_attention=flash).micro_batch_tokens)
        for flash, kv in ways
    ]


def thread_counts(cores: int, processors: int) -> tuple[int, ...]:
    """Numbers of threads to try beside one per core: half as many, and one per hardware thread."""
    return tuple(count for count in (max(1, cores // 2), processors) if count != cores)


def measure_settings(
    profile: Profile, threads: int | None, model: Model, budget_s: float = BUDGET_S
) -> Tuning:
    """Time a prefill and decode steps with each open way, then numbers of threads and micro-batches.

    Args:
        profile: see choose_settings().
        threads: see choose_settings().
        model: the loaded model.
        budget_s: seconds that this may take; the more, the longer the measured prompts.

    Raises:
        ModelFileError: the computation failed.
        RequestError: the contexts do not fit in memory.
    """
    return COMPUTE_THREAD.call(lambda: _Measurement(profile, threads, model, budget_s).run())


class _DisturbedError(Exception):
    """Other programs take so much of the processors that nothing can be measured."""


class _Measurement:
    """The contexts of the open ways, and their times."""

    def __init__(self, profile: Profile, threads: int | None, model: Model, budget_s: float) -> None:
        self._profile, self._threads, self._model = profile, threads, model
        self._budget_s = budget_s
        self._slots = profile.slots
        self._ways = _ways(profile, threads, model.header)
        self._using = self._ways[0].threads  # threads that compute at the moment
        self._wall_s = self._granted_s = self._wanted_s = 0.0  # of all steps so far
        longest = min(_PREFILL_MAX + _STEPS, profile.context, model.context_trained)
        self._longest = max(1, longest - _STEPS)
        vocabulary = model.vocabulary_size
        self._prompt = tuple(token % vocabulary for token in range(1, self._longest + 1))

    def run(self) -> Tuning:
        trials: list[Trial] = []
        best = self._ways[0]
        with ExitStack() as loaded, suppress(_DisturbedError):
            contexts = [loaded.enter_context(Context(self._model, self._params(way))) for way in self._ways]
            self._end = perf_counter() + self._budget_s
            trials = self._time_ways(contexts)
            fastest = min(trials, key=self._cost)
            best, context = fastest.settings, contexts[trials.index(fastest)]
            for vary in (self._vary_threads, self._vary_micro_batch):
                others = list(vary(context, fastest))
                trials.extend(others)
                fastest = min([fastest, *others], key=self._cost)
                best = fastest.settings
            return Tuning(best, tuple(trials), self._slots, self._granted_s >= _SHARE_MIN * self._wanted_s)
        return Tuning(best, tuple(trials), self._slots, quiet=False)

    def _params(self, settings: ComputeSettings) -> ContextParams:
        batch = max(self._slots, min(self._profile.batch, self._longest))
        context = min(self._longest + _STEPS, self._model.context_trained)
        return ContextParams(context, self._slots, batch, outputs=self._slots, **asdict(settings))

    @property
    def _late(self) -> bool:
        return perf_counter() > self._end

    def _cost(self, trial: Trial) -> float:
        """Seconds, with a handicap for each setting that is not the default."""
        one, usual = trial.settings, self._ways[0]
        others = (
            (one.flash_attention != usual.flash_attention)
            + (one.kv != usual.kv)
            + (one.threads != usual.threads)
            + (one.prefill_threads != usual.prefill_threads)
            + (one.micro_batch == _SMALL_MICRO_BATCH != usual.micro_batch)
        )
        return trial.question_s(self._slots) * (1 + _GAIN_MIN * others)

    def _time_ways(self, contexts: Sequence[Context]) -> list[Trial]:
        """Time all ways, in turns, so that disturbances hit all of them."""
        first = min(_SHALLOW, self._longest)
        for context in contexts:  # the first batches also read the weights and fill the processor's caches
            self._prefill_s(context, 0, first)
        rate_s = min(self._prefill_s(context, 0, first) / first for context in contexts)
        step_s = self._decode_s(contexts[0], first, 1)
        tokens, steps = self._plan(len(contexts), rate_s, step_s)
        shallow = _fastest(steps, [partial(self._decode_s, context, first, 1) for context in contexts])
        prefill = [self._prefill_s(context, 0, tokens) / tokens for context in contexts]
        for context in contexts:
            state = context.save(0)
            for slot in range(1, self._slots):
                context.restore(slot, state, tokens)
        deep = _fastest(steps, [partial(self._decode_s, context, tokens, 1) for context in contexts])
        together = _fastest(
            steps, [partial(self._decode_s, context, tokens, self._slots) for context in contexts]
        )
        self._tokens = tokens
        trials = []
        for index, way in enumerate(self._ways):
            slope = max(0.0, deep[index] - shallow[index]) / max(1, tokens - first)
            further = slope * max(0, _DEPTH - tokens)  # attention grows with the depth
            trials.append(
                Trial(way, prefill[index], deep[index] + further, together[index] + self._slots * further)
            )
        return trials

    def _plan(self, ways: int, rate_s: float, step_s: float) -> tuple[int, int]:
        """Tokens of a prefill and number of decode steps that the budget allows."""
        steps_s = ways * (2 + min(self._slots, 3)) * step_s
        steps = max(_STEPS_MIN, min(_STEPS, int(self._budget_s / 3 / steps_s)))
        left_s = self._end - perf_counter() - steps * steps_s
        tokens = int(left_s / ((ways + 2) * rate_s * 0.75))  # longer batches take less a token
        return min(self._longest, max(_PREFILL_MIN, min(tokens, _PREFILL_MAX))), steps

    def _vary_threads(self, context: Context, best: Trial) -> Iterator[Trial]:
        """Other numbers of threads for decode, and for prefill."""
        if self._threads:
            return
        usual, tokens = best.settings.threads, min(_PREFILL_MIN, self._tokens)
        measures = [
            partial(self._decode_s, context, self._tokens, 1),
            partial(self._decode_s, context, self._tokens, self._slots),
            partial(self._prefill_s, context, self._tokens - tokens, tokens),
        ]
        times = {}
        for count in (usual, *thread_counts(usual, usable_processors())):
            context.set_threads(count, count)
            self._using = count
            _fastest(1, measures[:1])  # OpenMP makes its team
            times[count] = _fastest(_STEPS_MIN, measures)
            if self._late:
                break
        context.set_threads(usual, usual)
        self._using = usual
        one, together, prefill = times.pop(usual)
        for count, (other_one, other_together, other_prefill) in times.items():
            decode = Trial(
                replace(best.settings, threads=count),
                best.prefill_s,
                best.decode_s * other_one / one,
                best.together_s,
            )
            yield decode
            yield Trial(
                replace(best.settings, prefill_threads=count),
                best.prefill_s * other_prefill / prefill,
                best.decode_s,
                best.together_s * other_together / together,
            )
            yield replace(
                decode,
                settings=replace(best.settings, threads=count, prefill_threads=count),
                prefill_s=best.prefill_s * other_prefill / prefill,
                together_s=best.together_s * other_together / together,
            )

    def _vary_micro_batch(self, context: Context, best: Trial) -> Iterator[Trial]:
        """A small micro-batch, as a prefill in small batches."""
        if self._profile.micro_batch or self._tokens < 2 * _SMALL_MICRO_BATCH or self._late:
            return
        context.set_threads(best.settings.threads, best.settings.prefill_threads)
        self._using = best.settings.prefill_threads
        small_s = self._prefill_s(context, 0, self._tokens, _SMALL_MICRO_BATCH)
        settings = replace(best.settings, micro_batch=_SMALL_MICRO_BATCH)
        yield replace(best, settings=settings, prefill_s=small_s / self._tokens)

    def _prefill_s(self, context: Context, start: int, tokens: int, step: int = _PREFILL_MAX) -> float:
        """Seconds of a prefill in slot 0 from position `start` on, `step` tokens at once."""
        context.clear(0, start)
        step = min(step, context.params.batch)
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
