"""Sandbox: its limits hold per thread or process, and are restored."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine import sandbox
from thirteen.runtime.engine.chat_template import ChatTemplate


def in_threads(count, work):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_threads_that_render_at_once_restore_the_memory_limit():
    """The limit is the process's: without a lock, one thread would restore the other's limit."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    template = ChatTemplate("{% for n in range(2000) %}{{ messages[0].content }}{% endfor %}")
    hostile = ChatTemplate("{{ [0] * 100000000 }}")

    def render(number):
        for _ in range(5):
            assert template.render([{"role": "user", "content": f"{number}"}]) == f"{number}" * 2000
            with pytest.raises(RequestError):
                hostile.render([])
            assert ChatTemplate("{{ messages | length }}").render([]) == "0"

    in_threads(8, render)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_waiting_for_the_lock_does_not_count_as_run_time(monkeypatch):
    """Otherwise one slow template would make the others fail that wait for it."""
    monkeypatch.setattr(sandbox, "SECONDS_MAX", 0.2)
    slow, quick = ChatTemplate("{% for n in range(90000) %}{% endfor %}" * 99), ChatTemplate("x")
    started = Event()

    def render(number):
        if number:
            assert started.wait(5)
            return quick.render([])
        with sandbox.limited_memory():
            started.set()
            for _ in range(2):
                with pytest.raises(RequestError, match="more than"):
                    slow.render([])
            return "slow"

    assert in_threads(2, render) == ["slow", "x"]


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("STEPS_MAX", 100, "more than 100 steps"), ("SECONDS_MAX", 0.01, r"more than 0\.01 seconds")],
)
def test_the_error_names_the_limit(monkeypatch, limit, value, message):
    monkeypatch.setattr(sandbox, "STEPS_MAX", 1 << 40)
    monkeypatch.setattr(sandbox, limit, value)
    with pytest.raises(RequestError, match=message):
        ChatTemplate("{% for n in range(90000) %}{% endfor %}" * 9).render([])


def test_limits_can_be_nested():
    with sandbox.limited(), sandbox.limited():
        assert ChatTemplate("x").render([]) == "x"
    assert sys.gettrace() is None or "limited" not in str(sys.gettrace())
