"""Bodies of HTTP requests, each sent to every route that answers, over the tiny model."""

import atexit
from functools import cache

from starlette.testclient import TestClient
from thirteen.runtime.engine.engine import Engine
from thirteen.server.app import create_app
from thirteen.server.config import ListenConfig, RequestLimits
from thirteen.server.engine_service import EngineService
from thirteen.server.http_errors import MESSAGE_CHARS_MAX

from ...runtime.conftest import CONTROL, TEMPLATE, write_gguf
from ...runtime.fakes import FIXED
from ..mutators import mutate_json
from ..target import Target, scratch_folder

_PATHS = (
    *(f"/v1/{name}" for name in ("chat/completions", "completions", "responses", "answer", "check")),
    *("/api/chat", "/api/generate"),
)
_TEMPLATE = "{% if tools %}{{ tools | tojson }}{% endif %}" + TEMPLATE
_LIMITS = RequestLimits(max_tokens=2, answers=2)
_FIELDS = (
    *("model", "stream", "n", "stop", "seed", "tools", "tool_choice", "effort", "temperature"),
    *("logprobs", "format", "options", "think"),
)


@cache
def _client() -> TestClient:
    template = {"tokenizer.chat_template": (_TEMPLATE, 8, None)}
    engine = Engine(write_gguf(scratch_folder("server") / "tiny.gguf", template, {}), **FIXED, context=256)
    atexit.register(engine.close)
    return TestClient(create_app(EngineService(engine, {"tiny": "base"}, _LIMITS), ListenConfig()))


def check(data: bytes) -> bool:
    accepted = [_accepts(path, data) for path in _PATHS]
    return any(accepted)


def _accepts(path: str, data: bytes) -> bool:
    headers = {"Content-Type": "application/json", "Host": "127.0.0.1"}
    response = _client().post(path, content=data, headers=headers)
    if response.status_code == 200:
        return True
    assert response.status_code in (400, 404, 413, 415, 422), response.text
    error = response.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message and "\n" not in message and len(message) <= MESSAGE_CHARS_MAX + 1
    return False


TARGET = Target(check, words=(*_FIELDS, *CONTROL), mutate=mutate_json, memory_bytes_max=64 << 20)
