"""Choice of the fastest settings: measured once, saved, the same for every engine, and within its time.

Most measurements here are of a fake context that takes prescribed times on fake clocks.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import Any, Self

import numpy as np
import pytest
from thirteen.errors import InsufficientMemoryError, RequestError
from thirteen.files.gguf.header import Header, read_header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import compute_settings, memory_estimate, settings_choice, settings_measurement
from thirteen.runtime.llama.bindings import llama_cpp
from thirteen.runtime.llama.compute_settings import ComputeSettings, limit_settings
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.memory_estimate import estimate_memory
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings_choice import (
    choose_settings,
    known_settings,
    parallel_cost,
    saved_settings,
)
from thirteen.runtime.llama.settings_measurement import (
    BUDGET_S,
    Trial,
    Tuning,
    measure_settings,
    thread_counts,
)
from thirteen.runtime.logits import log_softmax
from thirteen.runtime.profile import PROFILES, Profile

LAPTOP, PHONE = PROFILES["laptop"], PROFILES["phone"]
DEFAULT = ComputeSettings(flash_attention=True, kv="f16", threads=1, prefill_threads=1)
STANDARD = replace(DEFAULT, flash_attention=False)
BF16 = replace(DEFAULT, kv="bf16")
ALL_GIVEN = replace(LAPTOP, flash_attention=True, kv="f16")


@pytest.fixture(autouse=True)
def saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of saved choices, empty."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """bf16(multiplies): whether the processor multiplies bfloat16; at first it does not."""

    def set_bf16(multiplies: bool) -> None:
        monkeypatch.setattr(compute_settings, "multiplies_bf16", lambda: multiplies)

    set_bf16(False)
    return set_bf16


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """measured(settings, quiet=True): what a measurement returns."""

    def set_measured(settings: ComputeSettings, quiet: bool = True) -> None:
        monkeypatch.setattr(settings_choice, "measure_settings", lambda *_: tuning(settings, quiet))

    return set_measured


def tuning(settings: ComputeSettings, quiet: bool = True) -> Tuning:
    return Tuning(settings, (Trial(settings, 0.01, 0.02, 0.04),), LAPTOP.slots, quiet)


@pytest.fixture(scope="module")
def model(tiny: Path) -> Iterator[Model]:
    with Model(tiny) as model:
        yield model


Seconds = Callable[[ContextParams, tuple[int, int], Sequence[Span]], float]


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

    def __init__(self, _: Model, params: ContextParams) -> None:
        self.params, self._threads = params, (params.threads, params.prefill_threads or params.threads)
        self._lengths = [0] * params.slots

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
        assert sum(len(span.tokens) for span in spans) <= self.params.batch, "a batch is too large"
        for span in spans:
            assert span.start == self._lengths[span.slot], "a gap in the KV cache"
            self._lengths[span.slot] += len(span.tokens)
            assert self._lengths[span.slot] <= self.params.context
        took = self.machine.seconds(self.params, self._threads, spans)
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
        monkeypatch.setattr(settings_measurement, "Context", FakeContext)
        monkeypatch.setattr(settings_measurement, "perf_counter", lambda: machine.wall_s)
        monkeypatch.setattr(settings_measurement, "process_time", lambda: machine.granted_s)
        monkeypatch.setattr(compute_settings, "default_threads", lambda: 2)
        monkeypatch.setattr(settings_measurement, "usable_threads", lambda: 2)
        return machine

    return make


def times(
    ways: dict[tuple[bool | None, str], float] | None = None, threads: dict[int, float] | None = None
) -> Seconds:
    """A millisecond for each token, times the factors of the way and of the number of threads."""

    def seconds(params: ContextParams, counts: tuple[int, int], spans: Sequence[Span]) -> float:
        tokens = sum(len(span.tokens) for span in spans)
        way = (ways or {}).get((params.flash_attention, params.kv), 1.0)
        return 1e-3 * tokens * way * (threads or {}).get(counts[tokens > 1], 1.0)

    return seconds


def test_numbers_of_threads_are_timed_too(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_measurement, "_HELD_UP_SHARE", 0.0)  # other tests run beside this one
    found = measure_settings(LAPTOP, None, model, budget_s=10)
    threads = {trial.settings.threads for trial in found.trials}
    usual = compute_settings.default_threads()
    assert threads == {usual, *thread_counts(usual, settings_measurement.usable_threads())}


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
    settings = measure_settings(LAPTOP, 2, model).settings
    assert (settings.flash_attention, settings.kv) == (way if faster else (True, "f16"))


def test_decode_and_prefill_have_numbers_of_threads_of_their_own(
    model: Model, machine: Callable[..., Machine]
) -> None:
    """Here one thread takes half the time for single tokens, and twice the time for more."""

    def seconds(_: ContextParams, counts: tuple[int, int], spans: Sequence[Span]) -> float:
        tokens = sum(len(span.tokens) for span in spans)
        return 1e-3 * tokens * ({1: 0.5, 2: 1.0} if tokens == 1 else {1: 2.0, 2: 1.0})[counts[tokens > 1]]

    machine(seconds)
    settings = measure_settings(LAPTOP, None, model).settings
    assert (settings.threads, settings.prefill_threads) == (1, 2)


@pytest.mark.parametrize("settings", [DEFAULT, STANDARD, BF16, replace(DEFAULT, threads=7)])
def test_a_choice_is_saved_and_not_measured_again(
    model: Model, saved: Path, measured: Callable[..., None], settings: ComputeSettings
) -> None:
    measured(settings)
    assert choose_settings(LAPTOP, 1, model) == settings
    (file,) = saved.iterdir()
    record = json.loads(file.read_text())
    assert record["settings"]["kv"] == settings.kv and record["trials"][0]["prefill_s"] == 0.01
    other = replace(settings, prefill_threads=9)
    measured(other)
    assert choose_settings(LAPTOP, 1, model) == settings
    assert known_settings(LAPTOP, 1, model.header) == settings
    assert parallel_cost(LAPTOP, 1, model.header) == pytest.approx(0.04 / LAPTOP.slots / 0.02)
    assert parallel_cost(LAPTOP, 3, model.header) is None
    for another, threads in ((LAPTOP, 2), (LAPTOP, None), (replace(LAPTOP, slots=2), 1)):
        assert choose_settings(another, threads, model) == other  # measured on its own
    assert sorted(map(repr, saved_settings())) == sorted(map(repr, [settings, other, other, other]))


DAMAGES = [{"kv": "q3"}, {"threads": 0}, {"threads": "two"}, {"speed": 1}]


@pytest.mark.parametrize("damage", ["", "[]", '{"settings"', '{"settings": {"kv": "f16"}}', *DAMAGES])
def test_a_damaged_choice_is_measured_again(
    model: Model, saved: Path, measured: Callable[..., None], damage: str | dict[str, Any]
) -> None:
    measured(STANDARD)
    choose_settings(LAPTOP, 1, model)
    (file,) = saved.iterdir()
    if isinstance(damage, dict):
        record = json.loads(file.read_text())
        damage = json.dumps(record | {"settings": record["settings"] | damage})
    file.write_text(damage)
    assert known_settings(LAPTOP, 1, model.header) is None and saved_settings() == []
    assert choose_settings(LAPTOP, 1, model) == STANDARD
    assert json.loads(file.read_text())["settings"]["flash_attention"] is False


@pytest.mark.parametrize(("share", "quiet"), [(1.0, True), (0.95, True), (0.75, False), (0.1, False)])
def test_a_measurement_without_its_processors_is_not_quiet(
    model: Model, machine: Callable[..., Machine], share: float, quiet: bool
) -> None:
    machine(times(), share)
    assert measure_settings(LAPTOP, 2, model).quiet is quiet
    machine(times(), share)
    assert measure_settings(LAPTOP, None, model).quiet is quiet


def test_what_is_given_is_not_measured(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_choice, "measure_settings", None)
    assert choose_settings(ALL_GIVEN, 3, model) == ComputeSettings(
        flash_attention=True, kv="f16", threads=3, prefill_threads=3
    )
    assert choose_settings(PHONE, 1, model) == ComputeSettings(threads=1, kv="q8_0")


@pytest.mark.parametrize(
    "given", [{"flash_attention": True}, {"flash_attention": False}, {"kv": "f16"}, {"kv": "bf16"}]
)
def test_a_given_value_wins_over_a_faster_one(
    model: Model, bf16: Callable[[bool], None], machine: Callable[..., Machine], given: dict[str, Any]
) -> None:
    bf16(True)
    for fastest in ((True, "f16"), (False, "f16"), (True, "bf16"), (False, "bf16")):
        machine(times({fastest: 0.3}))
        found = measure_settings(replace(LAPTOP, **given), 2, model)
        for trial in found.trials:
            assert given.items() <= {name: getattr(trial.settings, name) for name in given}.items()
            assert (trial.settings.threads, trial.settings.prefill_threads) == (2, 2)


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize(
    "profile",
    [
        *PROFILES.values(),
        replace(LAPTOP, context=64, slots=1, batch=1),
        replace(LAPTOP, context=1, slots=1),
        replace(LAPTOP, context=4, slots=3, batch=3),
        replace(LAPTOP, context=100, slots=2, batch=40),
    ],
    ids=lambda one: f"context {one.context}, batch {one.batch}" if isinstance(one, Profile) else None,
)
def test_no_measured_batch_is_larger_than_the_profile_allows(
    model: Model, machine: Callable[..., Machine], profile: Profile, threads: int | None
) -> None:
    """A prompt longer than a batch was measured as one: engines of the profile phone could not be loaded."""
    machine(times())
    measure_settings(profile, threads, model)


def test_a_phone_engine_and_one_with_small_batches_are_loaded(wide_heads: Path) -> None:
    """'a batch has from 1 to 64 tokens and up to 1 rows of logits, not 151 and 1'."""
    with Engine(wide_heads, profile="phone", threads=1) as engine:
        assert engine.profile.kv == "q8_0"
        assert engine.answer("1 + 1?", max_tokens=4).usage.completion_tokens == 4
    with Engine(wide_heads, batch=16, threads=1) as engine:
        assert engine.answer("1 + 1?", max_tokens=4).usage.completion_tokens == 4


def test_a_measurement_whose_steps_are_held_up_ends_all_the_same(
    model: Model, bf16: Callable[[bool], None], machine: Callable[..., Machine]
) -> None:
    """Beside another program an engine took 85 s to load, nearly all for the measurement.

    Every batch with two threads then takes more than a second, however small it is.
    """
    bf16(True)
    used = machine(lambda *_: 1.2, share=0.5)
    began = used.wall_s
    found = measure_settings(LAPTOP, None, model)
    assert used.wall_s - began <= 2 * BUDGET_S
    assert found.settings == replace(DEFAULT, threads=2, prefill_threads=2) and not found.quiet


def memory_of(header: Header, profile: Profile) -> int:
    """Bytes that must be available for a profile."""
    estimate = estimate_memory(header, profile)
    return estimate.total_bytes - estimate.program_bytes


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """available(nbytes): the memory that a process can have."""
    monkeypatch.setattr(memory_estimate, "reserved_bytes", lambda _: 0)
    return lambda nbytes: monkeypatch.setattr(memory_estimate, "available_bytes", lambda: nbytes)


def test_what_takes_less_memory_is_decided_by_the_memory(
    wide_heads: Path, available: Callable[[int], None]
) -> None:
    """First flash attention, whose scores are not stored, and then a KV cache in q8_0."""
    profile, header = replace(LAPTOP, context=256, batch=64), read_header(wide_heads)
    flash, quantized = (
        replace(profile, flash_attention=True),
        replace(profile, flash_attention=True, kv="q8_0"),
    )
    most, less, least = (
        memory_of(header, one) for one in (replace(profile, flash_attention=False), flash, quantized)
    )
    assert least < less < most
    for nbytes, limited in (
        (most, profile),  # all is open
        (most - 1, flash),
        (less, flash),
        (less - 1, quantized),
        (least, quantized),
        (least - 1, profile),  # nothing helps
    ):
        available(nbytes)
        assert limit_settings(profile, header, 1) == limited
    assert limit_settings(replace(profile, gpu_layers=1), header, 1).flash_attention is None
    short = replace(LAPTOP, context=64)  # standard attention has a smaller micro-batch
    available(memory_of(header, replace(short, flash_attention=False)))
    assert limit_settings(short, header, 1).flash_attention is False
    available(0)
    with pytest.raises(InsufficientMemoryError):
        memory_estimate.check_memory(header, limit_settings(profile, header, 1), 1)


def test_heads_that_q8_0_cannot_hold_keep_f16(tiny: Path, available: Callable[[int], None]) -> None:
    """They have 16 values, and a block of q8_0 has 32."""
    header = read_header(tiny)
    available(memory_of(header, replace(LAPTOP, flash_attention=True)) - 1)
    assert limit_settings(LAPTOP, header, 1).kv is None


def test_an_engine_with_little_memory_has_a_cache_in_q8_0(
    wide_heads: Path, available: Callable[[int], None]
) -> None:
    header = read_header(wide_heads)
    available(memory_of(header, replace(LAPTOP, batch=64, flash_attention=True)) - 1)
    with Engine(wide_heads, batch=64, threads=1) as engine:
        assert (engine.profile.kv, engine.profile.flash_attention) == ("q8_0", True)
        assert engine.answer("1 + 1?", max_tokens=4).usage.completion_tokens == 4


def test_standard_attention_cannot_read_a_quantized_cache(tiny: Path) -> None:
    with pytest.raises(RequestError, match="kv q8_0 needs flash attention"):
        Engine(tiny, kv="q8_0", flash_attention=False)


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
            with Context(model, ContextParams(48, 1, 48, threads=1, outputs=1, **way)) as context:
                (row,) = context.decode([Span(0, 0, tokens, rows=1)])
                logprobs.append(log_softmax(context.logits_row(row), np.float64))
    exact, *others = logprobs
    for other in others:
        assert 1e-12 < np.sum(np.exp(exact) * (exact - other)) < 1e-2


def test_an_engine_uses_what_was_chosen_or_given(tiny: Path, measured: Callable[..., None]) -> None:
    measured(replace(STANDARD, prefill_threads=2))
    with Engine(tiny) as chosen, Engine(tiny, threads=1, flash_attention=True) as given:
        assert (chosen.profile.flash_attention, chosen.profile.kv) == (False, "f16")
        params = chosen._runner._context.params
        assert (params.threads, params.prefill_threads) == (1, 2)
        assert params.adaptive_threads and not given._runner._context.params.adaptive_threads
        assert chosen.answer("1 + 1?", max_tokens=8).text == given.answer("1 + 1?", max_tokens=8).text
    settings = {"threads": 2, "flash_attention": True, "kv": "bf16"}
    with Engine(tiny, **settings) as engine:
        params = engine._runner._context.params
        assert settings.items() <= {name: getattr(params, name) for name in settings}.items()
        assert params.prefill_threads == 2


def test_a_disturbed_choice_holds_for_ten_minutes(
    model: Model, saved: Path, measured: Callable[..., None]
) -> None:
    """On a busy machine every start measured for three seconds."""
    measured(STANDARD, quiet=False)
    assert choose_settings(LAPTOP, 1, model) == STANDARD
    assert saved_settings() == [] and known_settings(LAPTOP, 1, model.header) == STANDARD
    (file,) = saved.glob("compute-*.json")
    os.utime(file, (time() - 601,) * 2)
    measured(DEFAULT)
    assert choose_settings(LAPTOP, 1, model) == DEFAULT  # measured again
    assert saved_settings() == [DEFAULT]


def test_the_memory_of_a_loaded_model_is_not_asked_for_twice(
    tiny: Path, measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines with little memory to spare got flash attention."""
    measured(STANDARD)
    loaded, name = [], "llama_model_load_from_file"
    load = getattr(llama_cpp, name)
    monkeypatch.setattr(
        llama_cpp, "llama_model_load_from_file", lambda *args: loaded.append(1) or load(*args)
    )
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: 0 if loaded else 1 << 40)
    with Engine(tiny, threads=1) as engine:
        assert engine.profile.flash_attention is False and loaded
