"""A server whose engine has failed ends, with a status from which a supervisor starts it again."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from thirteen.cli import main as cli
from thirteen.errors import ClosedError, EngineFailedError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import BASE, Request
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.engine_service import Client
from thirteen.server.http_errors import to_http_error
from thirteen.server.serve import ListenConfig, run_server
from thirteen.server.served_models import ServedModels


def test_a_failed_engine_ends_the_server_after_its_responses(
    open_fake_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process answered 503 for ever, and nothing restarted it."""

    def fail() -> None:
        raise ZeroDivisionError

    with open_fake_engine() as engine, ThreadPoolExecutor() as threads:
        monkeypatch.setattr(engine._runner, "step", fail)
        responses = []

        def ask(url: str) -> None:
            body = {"prompt": "a", "max_tokens": 4}
            responses.append(threads.submit(httpx.post, f"{url}/v1/completions", json=body, timeout=60))

        with pytest.raises(EngineFailedError, match="engine has failed"):
            run_server(
                ServedModels.on_engine(engine, {"tiny": BASE}),
                ListenConfig("127.0.0.1", 0),
                RequestLimits(),
                ask,
            )
        assert responses[0].result().status_code == 500


def test_a_request_that_waits_while_the_engine_fails_is_not_to_blame(
    open_fake_engine: Callable[..., Engine],
) -> None:
    """It was a 400: the engine is closed."""
    with open_fake_engine() as engine:
        service = ServedModels.on_engine(engine, {"tiny": BASE}).services["tiny"]

        def prepare() -> list[Request]:
            engine.close()
            return [Request((1,), 1)]

        with pytest.raises(ClosedError) as caught:
            asyncio.run(service.submit(Client("", ""), 0, 1, prepare))
        assert to_http_error(caught.value).status == 503 and service.idle


def test_the_exit_status_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EngineFailedError("the engine has failed")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["thirteen"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: the engine has failed\n"
