"""All that may open an OpenMP region runs in one thread, so that libgomp has one team of workers."""

import signal
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident, main_thread
from time import sleep

import pytest
from thirteen.runtime import compute
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.llama_cpp_library import llama_cpp

# What an engine calls of llama.cpp that may open a parallel region.
PARALLEL = ("llama_model_load_from_file", "llama_init_from_model", "llama_decode", "llama_adapter_lora_init")


def test_what_is_called_after_an_interrupt_comes_after_the_interrupted_call():
    """SIGTERM freed the model under a batch that was being computed."""
    ended = []

    def interrupted():
        signal.pthread_kill(main_thread().ident, signal.SIGALRM)
        sleep(0.1)
        ended.append(True)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compute.call(interrupted)
        assert compute.call(lambda: [*ended]) == [True]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_engines_that_other_threads_load_compute_in_one(tiny, loras, monkeypatch):
    """Models were loaded in the caller's thread, where repacking for AMX made a second team."""
    calls = set()  # of functions, and the threads that call them
    computing = compute.call(get_ident)

    def recorded(name, function):
        return lambda *args: calls.add((name, get_ident())) or function(*args)

    for name in PARALLEL:
        monkeypatch.setattr(llama_cpp, name, recorded(name, getattr(llama_cpp, name)))

    def use(adaptive_threads):
        with Engine(
            tiny, adapters={"other": loras["a"]}, context=64, adaptive_threads=adaptive_threads
        ) as engine:
            engine.answer("1 + 1?", max_tokens=3)
            engine.prompt_logprobs((1, 2, 3))
            engine.logits((1, 2, 3))
            engine.answer("1 + 1?", max_tokens=3, adapter="other")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(use, (False, True)))
    assert calls == {(name, computing) for name in PARALLEL}
