"""Several models behind one server: loaded on demand, and unloaded for each other and when idle."""

import asyncio
import gc
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from threading import Event

import ollama
import openai
import pytest
from thirteen.errors import RequestError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.effort import Effort
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.plan import memory
from thirteen.server import served_models
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.app import create_app
from thirteen.server.served_models import ModelPool, PooledModel, ServedModels
from thirteen.workflows.model_files import ModelFiles
from thirteen.workflows.serving import _Loader

from ..runtime.fixed_settings import FIXED
from ..waiting import wait_until
from .serving import open_engine, run_app

NAMES = ("one", "two", "three")
MEMORY = 100


@contextmanager
def serve_pool(tiny, models):
    """Serve the tiny model under several names; `models` has what each is said to need."""
    header = read_header(tiny)
    load = partial(open_engine, tiny, context=256, slots=1)
    pooled = {name: PooledModel(header, nbytes, load) for name, nbytes in models.items()}
    pool = ModelPool(lambda: dict(pooled), MEMORY)
    limits = RequestLimits()
    try:
        with run_app(create_app(pool, limits), pool, limits) as server:
            yield pool, server
    finally:
        pool.close()


def ask(client, model, **options):
    said = [{"role": "user", "content": "a"}]
    return client.chat.completions.create(**{"model": model, "messages": said, "max_tokens": 4} | options)


def test_the_page_chooses_medium_for_a_cheap_model_without_adapter(tiny):
    with open_engine(tiny) as engine:
        engine.default_effort = Effort.MEDIUM
        served = ServedModels.on_engine(engine, {"tiny": "base", "math": "math"})
        chosen = [served.default_effort(*one) for one in (("tiny", 8), ("tiny", 7), ("math", 8))]
        assert chosen == [Effort.MEDIUM, Effort.LOW, Effort.LOW]
        engine.model.header.fields["thirteen.adapter.id"] = None
        assert served.default_effort("tiny", 8) is Effort.LOW


def test_the_least_recently_used_model_makes_room(tiny):
    with serve_pool(tiny, dict.fromkeys(NAMES, 40)) as (pool, server), server.openai() as client:
        assert [model.id for model in client.models.list()] == [*NAMES] and not pool.services
        assert [ask(client, name).model for name in ("default", "two", "one")] == ["one", "two", "one"]
        assert [*pool.services] == ["two", "one"]
        assert client.responses.create(model="three", input="a", max_output_tokens=4).model == "three"
        assert [*pool.services] == ["one", "three"]
        with server.http() as http:
            loaded = ollama.Client(server.url).ps().models
            assert [model.name for model in loaded] == ["one", "three"]
            left_s = [(model.expires_at - datetime.now(UTC)).total_seconds() for model in loaded]
            assert left_s[0] < left_s[1] <= served_models.IDLE_S
            assert len(http.get("/api/tags").json()["models"]) == 3
            echo = {"model": "two", "prompt": "ab", "echo": True, "logprobs": 1, "max_tokens": 0}
            assert http.post("/v1/completions", json=echo).json()["choices"][0]["text"] == "ab"
            assert http.post("/v1/answer", json={"model": "one", "question": "a"}).status_code == 200
            metrics = http.get("/metrics").text
        assert "thirteen_slots 2.0" in metrics and 'thirteen_answers_total{stop_reason="length"} ' in metrics
        with pytest.raises(openai.NotFoundError):
            ask(client, "four")


def test_a_model_in_use_is_not_unloaded_and_others_wait_for_their_turn(tiny):
    """It was a 429. What is asked of the model in use meanwhile comes after them."""
    with serve_pool(tiny, dict.fromkeys(NAMES, 60)) as (pool, server), server.openai() as client:
        options = {
            "max_tokens": 250,
            "stream": True,
            "temperature": 1,
            "top_p": 1,
            "extra_body": {"top_k": 0},
        }
        stream = ask(client, "one", logit_bias={"258": -100}, **options)
        next(stream)
        ended = []
        with ThreadPoolExecutor() as threads:
            asked = [threads.submit(ask, client, "two") for _ in range(3)]
            wait_until(lambda: pool._crowded and pool._turns["two"].waiting == 3)
            asked += [threads.submit(ask, client, "one") for _ in range(2)]
            wait_until(lambda: "one" in pool._turns and pool._turns["one"].waiting == 2)
            for one in asked:
                one.add_done_callback(lambda one: ended.append(one.result().model))
            assert [*pool.services] == ["one"] and not ended
            assert list(stream)[-1].choices[0].finish_reason == "length"
        assert ended == ["two"] * 3 + ["one"] * 2
        wait_until(lambda: not pool._turns and pool.services["one"].unused)


@contextmanager
def asking(server, model):
    """A client that asks, and leaves at the end of the block without an answer."""
    client = HTTPConnection("127.0.0.1", server.port)
    body = json.dumps({"model": model, "prompt": "a", "max_tokens": 4})
    client.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    try:
        yield
    finally:
        client.close()


def left_count(http):
    """Responses to clients that had left, as the metrics count them."""
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if 'status="499"' in line and "_total" in line)


def test_a_client_that_has_left_no_longer_waits_for_memory(tiny):
    """All that was asked of the model in use waited until that was unused."""
    models = dict.fromkeys(NAMES, 60)
    with serve_pool(tiny, models) as (pool, server), server.openai() as client, server.http() as http:
        ask(client, "one")
        one = pool.services["one"]
        one.pinned += 1  # as by an answer that takes long
        with asking(server, "two"):
            with asking(server, "two"):
                wait_until(lambda: pool._crowded and pool._turns["two"].waiting == 2)
            wait_until(lambda: pool._turns["two"].waiting == 1)
            assert pool._crowded, "the other still waits"
        wait_until(lambda: not pool._turns)
        assert ask(client, "one").model == "one" and pool.services == {"one": one}
        wait_until(lambda: left_count(http) == 2)
        one.pinned -= 1
        assert ask(client, "two").model == "two"
        wait_until(lambda: pool.services["two"].unused)


@pytest.mark.parametrize("fails", [False, True])
def test_a_client_may_leave_while_its_model_is_loaded(tiny, fails, caplog):
    """The model is loaded and unused; that it cannot be loaded is nobody's concern."""
    goes_on = Event()
    with serve_pool(tiny, {"one": 60}) as (pool, server), server.http() as http:
        load = pool._pooled["one"].load

        def load_slowly():
            goes_on.wait()
            if fails:
                raise RequestError("no")
            return load()

        pool._pooled = {"one": replace(pool._pooled["one"], load=load_slowly)}
        with asking(server, "one"):
            wait_until(lambda: "one" in pool._turns and pool._turns["one"].waiting)
        wait_until(lambda: left_count(http) == 1)
        goes_on.set()
        wait_until(lambda: not pool._turns)
        assert [name for name, service in pool.services.items() if service.unused] == ["one"] * (not fails)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_model_for_which_memory_is_short_may_be_asked_later(tiny, monkeypatch):
    """Other programs have the memory: it was a 500."""
    with serve_pool(tiny, {"one": 60}) as (_, server), server.openai() as client:
        with monkeypatch.context() as patch, pytest.raises(openai.RateLimitError, match="too little memory"):
            patch.setattr(memory, "available_bytes", lambda: 0)
            ask(client, "one")
        assert ask(client, "one").model == "one"


def test_an_idle_model_is_unloaded_and_a_failed_one_replaced(tiny, monkeypatch):
    with serve_pool(tiny, dict.fromkeys(NAMES, 60)) as (pool, server), server.openai() as client:
        ask(client, "one")
        pool.services["one"].engine.close()
        assert ask(client, "one").model == "one" and server.http().get("/ready").status_code == 200
        monkeypatch.setattr(served_models, "IDLE_S", 0.0)
        wait_until(lambda: not pool.services)
        assert ask(client, "one").model == "one"


def test_a_model_that_never_fits_is_refused_at_the_start(tiny):
    with pytest.raises(RequestError, match="memory 0 MB: two needs 0 MB, more than the limit"):
        ModelPool(lambda: {"two": PooledModel(read_header(tiny), 101, lambda: None)}, MEMORY)


def test_a_model_whose_file_has_changed_is_loaded_again(tiny):
    with serve_pool(tiny, dict.fromkeys(NAMES, 40)) as (pool, server), server.openai() as client:
        for name in ("one", "two"):
            ask(client, name)
        old, kept = pool.services["one"].engine, pool.services["two"].engine
        found = pool._find()
        pool._find = lambda: found | {"one": replace(found["one"], stamp="another file")}
        server.server._handle_hangup(1, None)
        wait_until(lambda: "one" not in pool.services)
        assert ask(client, "one").model == "one" and ask(client, "two").model == "two"
        assert pool.services["one"].engine is not old and pool.services["two"].engine is kept
        wait_until(lambda: old.closed)


def test_unloading_gets_along_with_loading(tiny):
    """Both were a KeyError in the server's loop: what nobody had used, and what was closed twice."""
    pooled = {
        name: PooledModel(read_header(tiny), nbytes, partial(open_engine, tiny, context=256, slots=1))
        for name, nbytes in zip(NAMES, (40, 40, 100), strict=True)
    }

    async def use():
        pool = ModelPool(lambda: dict(pooled), MEMORY)
        leaving = asyncio.ensure_future(pool.use("one"))
        while not pool._turns:
            await asyncio.sleep(0)
        leaving.cancel()
        while not pool.services:
            await asyncio.sleep(0.01)
        await pool.tend()
        for name in ("one", "two"):
            (await pool.use(name)).pinned -= 1
            pooled[name] = replace(pooled[name], stamp="another file")
        await pool.reload()
        await asyncio.gather(pool.tend(), pool.use("three"))
        loaded = [*pool.services]
        pool.close()
        return loaded

    assert asyncio.run(use()) == ["three"]


def test_an_engine_that_fails_to_warm_up_is_closed(tiny, monkeypatch):
    """Each reload that failed so left a model in memory; the engine before serves on."""
    fail, failed = [False], []
    clear = Engine.clear_prefix_cache

    def clear_or_fail(engine):
        if fail[0]:
            failed.append(engine)
            raise OSError("no")
        clear(engine)

    monkeypatch.setattr(Engine, "clear_prefix_cache", clear_or_fail)
    loader, files = _Loader(FIXED | {"queue": 4, "slots": 1, "context": 256}), ModelFiles(tiny)
    engine = loader.load(files)
    served = ServedModels.on_engine(engine, {"one": "base"})
    served.load_changed = lambda: loader.load(files)
    loader._states, fail[0] = [], True
    with pytest.raises(OSError, match="no"):
        asyncio.run(served.reload())
    assert failed[0].closed and not engine.closed and served.services["one"].engine is engine
    fail[0] = False
    asyncio.run(served.reload())
    assert served.services["one"].engine is not engine, "what failed is tried again"
    served.close()
