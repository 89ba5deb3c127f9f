"""All that may open an OpenMP region runs in one thread, so that libgomp has one team of workers."""

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread, main_thread
from threading import enumerate as enumerate_threads
from time import sleep
from typing import Any

import pytest
from thirteen.bench.memory.memory import _copied_bytes, _start_s
from thirteen.errors import FileError
from thirteen.files.progress import Run
from thirteen.quality.workload import Workload
from thirteen.runtime.corpus.token_statistics import mean_probability, outside_probability
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import load_probe_worker
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import LoraAdapter, Model
from thirteen.runtime.native.bindings import llama_cpp
from thirteen.runtime.native.compute_thread import COMPUTE_THREAD, KeepAlive, run_uninterrupted
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.plan.candidates import Candidates
from thirteen.runtime.plan.measurement import measure_settings

from ..fixed_settings import FIXED
from ..gguf_adapters import write_lora

# Everything in llama.cpp that may open a parallel region.
PARALLEL = (
    *("llama_model_load_from_file", "llama_init_from_model", "llama_decode", "llama_encode"),
    *("llama_adapter_lora_init", "llama_model_quantize"),
)
Calls = list[tuple[str, str]]  # name of the function, name of the thread


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Calls]:
    """The calls of PARALLEL; at the end, all must have been in the engine's thread."""
    made: Calls = []

    def recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            made.append((name, current_thread().name))
            return function(*args)

        return call

    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    for name in PARALLEL:
        monkeypatch.setattr(llama_cpp, name, recorded(name, getattr(llama_cpp, name)))
    yield made
    assert made, "nothing was recorded"
    assert [call for call in made if call[1] != "thirteen-engine"] == []


def test_what_a_signal_raises_waits_for_the_end_of_the_computation() -> None:
    """SIGTERM freed the model under a batch that was being computed: only Ctrl-C waited."""
    ended: list[bool] = []

    def compute() -> None:
        signal.pthread_kill(main_thread().ident or 0, signal.SIGALRM)
        sleep(0.1)
        ended.append(True)

    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit())
    COMPUTE_THREAD.attach(attached := KeepAlive())
    for number, wait in enumerate((COMPUTE_THREAD.call, run_uninterrupted), 1):
        with pytest.raises(SystemExit):
            wait(compute)
        assert len(ended) == number
    COMPUTE_THREAD.detach(attached)
    signal.signal(signal.SIGALRM, before)


def names(calls: Calls) -> set[str]:
    return {name for name, _ in calls}


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "lora.gguf", seed=1)


def use(engine: Engine, lora: Path) -> None:
    """Everything that an engine computes."""
    engine.answer("1 + 1?", max_tokens=3)
    engine.prompt_logprobs((1, 2, 3))
    engine.logits((1, 2, 3))
    engine.swap("other", lora)
    engine.answer("1 + 1?", max_tokens=3, adapter="other")


def test_an_engine_loads_measures_and_computes_in_one_thread(tiny: Path, lora: Path, calls: Calls) -> None:
    """Models were loaded in the caller's thread, where repacking for AMX made a second team."""
    with Engine(tiny, adapter=lora, context=64, slots=2) as engine:
        use(engine, lora)
    assert names(calls) == set(PARALLEL) - {"llama_encode", "llama_model_quantize"}


def test_an_engine_that_another_thread_loads_and_closes(tiny: Path, lora: Path, calls: Calls) -> None:
    def run() -> None:
        with Engine(tiny, context=64, **FIXED) as engine:
            use(engine, lora)

    with ThreadPoolExecutor(2) as threads:
        for running in [threads.submit(run) for _ in range(2)]:
            running.result()
    assert len([name for name, _ in calls if name == "llama_model_load_from_file"]) == 2


def test_no_thread_is_left_after_a_model_or_one_that_could_not_be_loaded(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> int:
        return len(COMPUTE_THREAD._attached)

    before = left()  # of models that other tests of this process share
    with Model(tiny):
        assert left() == before + 1
        assert any(thread.name == "thirteen-engine" for thread in enumerate_threads())
    assert left() == before
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", lambda *_: None)
    with pytest.raises(FileError):
        Model(tiny)
    assert left() == before
    assert before or not any(thread.name == "thirteen-engine" for thread in enumerate_threads())


def test_a_model_with_contexts_and_an_adapter_of_its_own(tiny: Path, lora: Path, calls: Calls) -> None:
    params = Settings(64, 1, 32, threads=1, outputs=32)
    for adaptive in (False, True):
        with (
            Model(tiny) as model,
            LoraAdapter(model, lora) as adapter,
            Context(model, Settings(64, 1, 32, threads=1, outputs=1, adaptive_threads=adaptive)) as one,
            Context(model, params, adapter) as other,
        ):
            one.decode([Span(0, 0, (1, 2), rows=1)])
            other.decode([Span(0, 0, (1, 2), rows=2)])


def test_calibration(tiny: Path, calls: Calls) -> None:
    passages = [(1, 2, 3)]
    with Model(tiny) as model:
        mean_probability(model, passages, Run(1))
        outside_probability(model, passages, range(model.vocabulary_size), [10], Run(1))
    assert "llama_decode" in names(calls)


def test_measurements_of_the_settings(tiny: Path, calls: Calls) -> None:
    with Model(tiny) as model:
        usual = Settings(64, 2, 32, threads=1)
        measure_settings(Candidates((usual,), None), model, budget_s=0.1)


def test_benchmarks(tiny: Path, calls: Calls) -> None:
    _copied_bytes(tiny)
    _start_s(tiny, None, Workload(prompt_tokens=2, decode_tokens=2, threads=1))


def test_trial_loads(tiny: Path, lora: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_probe_worker, "_write", lambda _: None)
    load_probe_worker._load(tiny, [lora])
    assert "llama_adapter_lora_init" in names(calls)
