"""Choice of the fastest settings: measured once, saved, the same for every engine, and within its time.

Most measurements here are of a fake context that takes prescribed times on fake clocks.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import Any, Self, Unpack

import numpy as np
import pytest
from thirteen.files.gguf.header import Header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import library_proof
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.logits import log_softmax
from thirteen.runtime.native.ik_llama_library import installed
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.plan import candidates as candidates_module
from thirteen.runtime.plan import measurement
from thirteen.runtime.plan import options as options_module
from thirteen.runtime.plan.candidates import Candidates, find_candidates
from thirteen.runtime.plan.measurement import BUDGET_S, measure_settings, thread_counts
from thirteen.runtime.plan.options import PROFILES, EngineOptions, default_settings
from thirteen.runtime.plan.plan import EnginePlan
from thirteen.runtime.plan.tuning import Trial, Tuning, find_tuning, join_tunings

DEFAULT = {"flash_attention": True, "kv": "f16", "threads": 1, "prefill_threads": 1}
STANDARD = DEFAULT | {"flash_attention": False}
BF16 = DEFAULT | {"kv": "bf16"}


@pytest.fixture(autouse=True)
def saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of saved choices, empty."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """bf16(multiplies): whether the processor multiplies bfloat16; at first it does not."""

    def set_bf16(multiplies: bool) -> None:
        monkeypatch.setattr(candidates_module, "multiplies_bf16", lambda: multiplies)

    set_bf16(False)
    return set_bf16


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """measured(chosen, quiet=True): what a measurement chooses, by names of settings."""

    def set_measured(chosen: dict[str, Any], quiet: bool = True) -> None:
        def measure(candidates: Candidates, _: Model) -> Tuning:
            settings = replace(candidates.ways[0], **chosen)
            return Tuning(settings, (Trial(settings, 0.01, 0.02, 0.04),), quiet)

        monkeypatch.setattr(measurement, "measure_settings", measure)

    return set_measured


def candidates(header: Header, **options: Unpack[EngineOptions]) -> Candidates:
    return find_candidates(default_settings(options), options, header)


def chosen(model: Model, **options: Unpack[EngineOptions]) -> dict[str, Any]:
    """What a plan has chosen, by names of settings."""
    settings = EnginePlan.make(model.header.path, **options).settings
    return {name: getattr(settings, name) for name in DEFAULT}


@pytest.fixture(scope="module")
def model(tiny: Path) -> Iterator[Model]:
    with Model(tiny) as model:
        yield model


Seconds = Callable[[Settings, tuple[int, int], Sequence[Span]], float]


@dataclass
class Machine:
    """Fake clocks, and how long a batch takes.

    Attributes:
        seconds: seconds of a batch, by parameters, threads (decode, prefill) and spans.
        share: of the processors' time that the process gets.
    """

    seconds: Seconds
    share: float = 1.0
    wall_s: float = 1000.0
    granted_s: float = 10.0
    decodes: int = 0


class FakeContext:
    """Takes the time that its machine prescribes, and checks batches as a real context does."""

    machine: Machine

    def __init__(self, _: Model, settings: Settings) -> None:
        self.settings, self._threads = settings, (settings.threads, settings.prefill_threads)
        self._lengths = [0] * settings.slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_threads(self, decode: int, prefill: int) -> None:
        self._threads = (decode, prefill)

    def clear(self, slot: int, start: int = 0) -> None:
        self._lengths[slot] = min(self._lengths[slot], start)

    def save(self, slot: int) -> int:
        return self._lengths[slot]

    def restore(self, slot: int, state: int, length: int) -> bool:
        self._lengths[slot] = length
        return state >= length

    def decode(self, spans: Sequence[Span]) -> list[int]:
        assert sum(len(span.tokens) for span in spans) <= self.settings.batch, "a batch is too large"
        for span in spans:
            assert span.start == self._lengths[span.slot], "a gap in the KV cache"
            self._lengths[span.slot] += len(span.tokens)
            assert self._lengths[span.slot] <= self.settings.context
        took = self.machine.seconds(self.settings, self._threads, spans)
        self.machine.wall_s += took
        self.machine.granted_s += took * self.machine.share * self._threads[0]
        self.machine.decodes += 1
        return [0] * len(spans)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """machine(seconds, share=1.0): measure on a machine of two processors with these times."""

    def make(seconds: Seconds, share: float = 1.0) -> Machine:
        machine = Machine(seconds, share)
        monkeypatch.setattr(FakeContext, "machine", machine, raising=False)
        monkeypatch.setattr(measurement, "Context", FakeContext)
        monkeypatch.setattr(measurement, "perf_counter", lambda: machine.wall_s)
        monkeypatch.setattr(measurement, "process_time", lambda: machine.granted_s)
        monkeypatch.setattr(options_module, "default_threads", lambda: 2)
        monkeypatch.setattr(measurement, "usable_threads", lambda: 2)
        return machine

    return make


def times(
    ways: dict[tuple[bool | None, str], float] | None = None, threads: dict[int, float] | None = None
) -> Seconds:
    """A millisecond for each token, times the factors of the way and of the number of threads."""

    def seconds(way: Settings, counts: tuple[int, int], spans: Sequence[Span]) -> float:
        tokens = sum(len(span.tokens) for span in spans)
        factor = (ways or {}).get((way.flash_attention, way.kv), 1.0)
        return 1e-3 * tokens * factor * (threads or {}).get(counts[tokens > 1], 1.0)

    return seconds


def test_numbers_of_threads_are_timed_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "_HELD_UP_SHARE", 0.0)  # other tests run beside this one
    found = measure_settings(candidates(model.header), model, budget_s=10)
    threads = {trial.settings.threads for trial in found.trials}
    usual = options_module.default_threads()
    assert threads == {usual, *thread_counts(usual, measurement.usable_threads())}


@pytest.mark.parametrize(("seconds", "faster"), [(0.97, False), (0.9, True), (1.0, False), (3.0, False)])
@pytest.mark.parametrize("way", [(False, "f16"), (True, "bf16")])
def test_another_way_must_be_clearly_faster(
    model: Model,
    bf16: Callable[[bool], None],
    machine: Callable[..., Machine],
    way: tuple[bool, str],
    seconds: float,
    faster: bool,
) -> None:
    bf16(True)
    machine(times({way: seconds, (False, "bf16"): 5.0}))
    settings = measure_settings(candidates(model.header, threads=2), model).settings
    assert (settings.flash_attention, settings.kv) == (way if faster else (True, "f16"))


def test_decode_and_prefill_have_numbers_of_threads_of_their_own(
    model: Model, machine: Callable[..., Machine]
) -> None:
    """Here one thread takes half the time for single tokens, and twice the time for more."""

    def seconds(_: Settings, counts: tuple[int, int], spans: Sequence[Span]) -> float:
        tokens = sum(len(span.tokens) for span in spans)
        return 1e-3 * tokens * ({1: 0.5, 2: 1.0} if tokens == 1 else {1: 2.0, 2: 1.0})[counts[tokens > 1]]

    machine(seconds)
    settings = measure_settings(candidates(model.header), model).settings
    assert (settings.threads, settings.prefill_threads) == (1, 2)


@pytest.mark.parametrize("settings", [DEFAULT, STANDARD, BF16, DEFAULT | {"threads": 7}])
def test_a_choice_is_saved_and_not_measured_again(
    model: Model, saved: Path, measured: Callable[..., None], settings: dict[str, Any]
) -> None:
    measured(settings)
    assert chosen(model, threads=1) == settings
    (file,) = saved.glob("compute-*.json")
    record = json.loads(file.read_text())
    assert (
        record["settings"] == settings | {"library": "llama.cpp"} and record["trials"][0]["prefill_s"] == 0.01
    )
    other = settings | {"prefill_threads": 9}
    measured(other)
    assert chosen(model, threads=1, context=64, prefix_bytes=0) == settings
    assert EnginePlan.make(model.header.path, threads=1).parallel_cost == pytest.approx(0.04 / 4 / 0.02)
    assert EnginePlan.make(model.header.path, threads=3, kv="f16").parallel_cost == pytest.approx(0.5)
    for options in ({"threads": 2}, {}, {"slots": 2, "threads": 1}):
        assert chosen(model, **options) == other  # measured on its own


DAMAGES = [{"kv": "q3"}, {"threads": 0}, {"threads": "two"}, {"speed": 1}]


@pytest.mark.parametrize("damage", ["", "[]", '{"settings"', '{"quiet": 1, "settings": [1]}', *DAMAGES])
def test_a_damaged_choice_is_measured_again(
    model: Model, saved: Path, measured: Callable[..., None], damage: str | dict[str, Any]
) -> None:
    measured(STANDARD)
    chosen(model, threads=1)
    (file,) = saved.glob("compute-*.json")
    if isinstance(damage, dict):
        record = json.loads(file.read_text())
        damage = json.dumps(record | {"settings": record["settings"] | damage})
    file.write_text(damage)
    assert find_tuning(candidates(model.header, threads=1), model.header) is None
    assert chosen(model, threads=1) == STANDARD
    assert json.loads(file.read_text())["settings"]["flash_attention"] is False


@pytest.mark.parametrize(("share", "quiet"), [(1.0, True), (0.95, True), (0.75, False), (0.1, False)])
def test_a_measurement_without_its_processors_is_not_quiet(
    model: Model, machine: Callable[..., Machine], share: float, quiet: bool
) -> None:
    machine(times(), share)
    assert measure_settings(candidates(model.header, threads=2), model).quiet is quiet
    machine(times(), share)
    assert measure_settings(candidates(model.header), model).quiet is quiet


def test_what_is_given_is_not_measured(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "measure_settings", None)
    given = STANDARD | {"threads": 3, "prefill_threads": 3}
    assert chosen(model, flash_attention=False, kv="f16", threads=3) == given


@pytest.mark.parametrize(
    "given", [{"flash_attention": True}, {"flash_attention": False}, {"kv": "f16"}, {"kv": "bf16"}]
)
def test_a_given_value_wins_over_a_faster_one(
    model: Model, bf16: Callable[[bool], None], machine: Callable[..., Machine], given: dict[str, Any]
) -> None:
    bf16(True)
    for fastest in ((True, "f16"), (False, "f16"), (True, "bf16"), (False, "bf16")):
        machine(times({fastest: 0.3}))
        found = measure_settings(candidates(model.header, **given, threads=2), model)
        for trial in found.trials:
            assert given.items() <= {name: getattr(trial.settings, name) for name in given}.items()
            assert (trial.settings.threads, trial.settings.prefill_threads) == (2, 2)


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize(
    "options",
    [
        *({"profile": name} for name in PROFILES),
        {"context": 64, "slots": 1, "batch": 1},
        {"context": 1, "slots": 1},
        {"context": 4, "slots": 3, "batch": 3},
        {"context": 100, "slots": 2, "batch": 40},
    ],
    ids=str,
)
def test_no_measured_batch_is_larger_than_the_options_allow(
    model: Model, machine: Callable[..., Machine], options: dict[str, Any], threads: int | None
) -> None:
    """A prompt longer than a batch was measured as one: engines of the profile phone could not be loaded."""
    machine(times())
    measure_settings(candidates(model.header, **options, threads=threads), model)


def test_a_measurement_whose_steps_are_held_up_ends_all_the_same(
    model: Model, bf16: Callable[[bool], None], machine: Callable[..., Machine]
) -> None:
    """Beside another program an engine took 85 s to load, nearly all for the measurement.

    Every batch with two threads then takes more than a second, however small it is.
    """
    bf16(True)
    used = machine(lambda *_: 1.2, share=0.5)
    began = used.wall_s
    found = measure_settings(candidates(model.header), model)
    assert used.wall_s - began <= 2 * BUDGET_S
    usual = candidates(model.header).ways[0]
    assert found.settings == usual and usual.threads == 2 and not found.quiet


def test_a_library_wins_over_no_other_whose_measurement_was_given_up(model: Model) -> None:
    """With 48 slots of a large model llama.cpp took too long, and a library half as fast won."""
    usual = candidates(model.header).ways[0]
    other = replace(usual, library="ik", flash_attention=False, kv="f16")
    found = join_tunings(
        [Tuning(usual, (), quiet=True), Tuning(other, (Trial(other, 1, 1, 1),), quiet=True)], usual
    )
    assert found.settings == usual and found.quiet


@pytest.mark.slow
def test_every_way_gives_the_exact_logits_within_its_rounding(smollm2: Path) -> None:
    tokens = tuple(range(1000, 1048))
    ways: tuple[dict[str, Any], ...] = (
        {"exact": True},
        *({"flash_attention": flash, "kv": kv} for flash in (True, False) for kv in ("f16", "bf16")),
        {"kv": "q8_0"},
    )
    logprobs = []
    with Model(smollm2) as model:
        for way in ways:
            with Context(model, Settings(48, 1, 48, threads=1, **way)) as context:
                (row,) = context.decode([Span(0, 0, tokens, rows=1)])
                logprobs.append(log_softmax(context.logits_row(row)))
    exact, *others = logprobs
    for other in others:
        assert 1e-12 < np.sum(np.exp(exact) * (exact - other)) < 1e-2


def test_an_engine_uses_what_was_chosen_or_given(tiny: Path, measured: Callable[..., None]) -> None:
    measured(STANDARD | {"prefill_threads": 2})
    with Engine(tiny) as best, Engine(tiny, threads=1, flash_attention=True) as given:
        settings = best._runner._context.settings
        assert (settings.flash_attention, settings.kv) == (False, "f16")
        assert (settings.threads, settings.prefill_threads) == (1, 2)
        assert settings.adaptive_threads and not given._runner._context.settings.adaptive_threads
        assert best.answer("1 + 1?", max_tokens=8).text == given.answer("1 + 1?", max_tokens=8).text


def test_a_disturbed_choice_holds_for_ten_minutes(
    model: Model, saved: Path, measured: Callable[..., None]
) -> None:
    """On a busy machine every start measured for three seconds."""
    measured(STANDARD, quiet=False)
    assert chosen(model, threads=1) == STANDARD
    measured(DEFAULT)
    plan = EnginePlan.make(model.header.path, threads=1)
    assert plan.settings.flash_attention is False and plan.parallel_cost is None
    (file,) = saved.glob("compute-*.json")
    os.utime(file, (time() - 601,) * 2)
    assert chosen(model, threads=1) == DEFAULT  # measured again


@pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")
@pytest.mark.parametrize(
    ("gain", "problem", "library"),
    [(1.5, "", "ik"), (1.05, "", "llama.cpp"), (1.5, "it aborts", "llama.cpp")],
)
def test_another_library_is_chosen_if_it_is_faster_and_proven(
    model: Model, saved: Path, gain: float, problem: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(part: Candidates, _: Model) -> Tuning:
        seconds = 1 / gain if part.ways[0].library == "ik" else 1.0
        trials = tuple(Trial(way, seconds, seconds, 4 * seconds) for way in part.ways)
        return Tuning(part.ways[0], trials, quiet=True)

    monkeypatch.delenv("THIRTEEN_LIBRARY")
    monkeypatch.setattr(measurement, "measure_settings", measure)
    monkeypatch.setattr(library_proof, "prove_library", lambda *_: problem)
    assert EnginePlan.make(model.header.path).settings.library == library
    monkeypatch.setattr(measurement, "measure_settings", pytest.fail)
    plan = EnginePlan.make(model.header.path)
    assert plan.settings.library == plan.library == library
    monkeypatch.setenv("THIRTEEN_LIBRARY", "llama.cpp")
    assert (
        EnginePlan.make(model.header.path, threads=1, flash_attention=True, kv="f16").settings.library
        == "llama.cpp"
    )
