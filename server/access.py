"""ASGI middleware around all routes: Host header, API keys, errors, metrics, and the log of requests."""

import json
import logging
import re
from datetime import UTC, datetime
from itertools import islice
from time import monotonic
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import BusyError, as_line
from .config import ANYONE, METRICS, ApiKey, ListenConfig
from .engine_service import Call, EngineService
from .http_errors import OLLAMA_PATHS, HttpError, to_http_error

ID_HEADER = "X-Request-ID"
IGNORED_HEADER = "X-Thirteen-Ignored"  # the fields of the request that had no effect
# Of CORSMiddleware, beside the allowed origins.
CORS_OPTIONS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "DELETE"],
    "allow_headers": ["*"],  # OpenAI's client for JavaScript sends headers of its own
    "allow_private_network": True,  # these pages are meant to reach a server on the user's machine
    "expose_headers": ["Retry-After", ID_HEADER, IGNORED_HEADER],
}
CALL = "thirteen.call"  # the key of a request's Call in its scope
_METRICS_PATH = "/metrics"
# Need a key if the server has keys; other paths are public.
_PROTECTED_PATHS = ("/v1/", OLLAMA_PATHS, _METRICS_PATH)
_FIELD_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_IGNORED_MAX = 32  # names that a response tells
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_PATH_CHARS_MAX = 100  # in the log: a client chooses it

_log = logging.getLogger(__name__)


class AccessMiddleware:
    """Refuses requests with a foreign Host header or without a valid API key, and counts and logs all.

    Errors of the application become responses here, because starlette's own handler for unexpected ones is
    outside of all middleware: its responses would have no CORS headers and would not be counted.
    """

    def __init__(self, app: ASGIApp, *, service: EngineService, listen: ListenConfig) -> None:
        self._app, self._service = app, service
        self._keys, self._allowed_hosts = listen.keys, listen.allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request to the application, or respond with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, given = monotonic(), dict(scope["headers"]).get(ID_HEADER.lower().encode(), b"")
        number = given.decode() if _REQUEST_ID.fullmatch(given) else uuid4().hex
        call = scope[CALL] = Call(self._service, Request(scope, receive))

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers[ID_HEADER] = number
                if ignored := _ignored_names(call):
                    headers[IGNORED_HEADER] = ignored
            await send(message)
            call.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        with self._service.answering(call):
            try:
                await self._respond(call, scope, receive, send_noted)
            finally:
                call.abort()  # what the client no longer waits for
                await self._record(call, monotonic() - began, number)

    async def _respond(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call.key = self._check_access(scope)
            if self._keys and scope["method"] == "POST":
                self._keys.admit(call.key)
            await self._app(scope, receive, send)
        except Exception as error:
            if call.status:
                raise
            response = to_http_error(error).response(scope["path"])
            if isinstance(error, BusyError):
                response.headers["Retry-After"] = str(self._service.retry_after_s)
            await response(scope, receive, send)

    def _check_access(self, scope: Scope) -> ApiKey:
        """Check the host and the API key of a request, and return the key."""
        headers, keys, path = dict(scope["headers"]), self._keys, scope["path"]
        if b"transfer-encoding" in headers and b"content-length" in headers:
            # A proxy in front may go by the other one: what it takes for the body would be a request here.
            message = "Content-Length and Transfer-Encoding exclude each other"
            raise HttpError(400, message, headers={"Connection": "close"})
        allowed, host = self._allowed_hosts, _hostname(headers.get(b"host", b""))
        if allowed is not None and host not in allowed:
            names = ", ".join(allowed)
            message = f"host {host[:100]!r} is not allowed: a server without API keys accepts only {names}"
            raise HttpError(403, message)
        if not keys or not path.startswith(_PROTECTED_PATHS):
            return ANYONE
        key = keys.identify(headers.get(b"authorization", b""))
        if key is None or (key.name == METRICS and path != _METRICS_PATH):
            raise HttpError(401, "the API key is missing or wrong: send Authorization: Bearer KEY")
        if path == _METRICS_PATH and key.name != METRICS:
            raise HttpError(403, "this API key does not read the metrics: that of a line `metrics: KEY` does")
        return key

    async def _record(self, call: Call, took_s: float, number: str) -> None:
        ends = await call.ends()
        self._service.note_ends(ends)
        metrics, path = self._service.metrics, getattr(call.request.scope.get("route"), "path", "") or "other"
        failed = len(call.handles) - len(ends)
        metrics.count_request(path, call.outcome, call.key.name, call.embedded_tokens, failed)
        for end in ends:
            metrics.count_answer(end, call.key.name)
        completion_tokens = sum(end.usage.completion_tokens for end in ends)
        if self._keys:
            prompt_tokens = sum(end.usage.prompt_tokens for end in ends) + call.embedded_tokens
            self._keys.add(call.key, "tokens_per_day", prompt_tokens + completion_tokens)
        if call.request.method != "POST":
            return
        fields = {
            "path": as_line(call.request.url.path)[:_PATH_CHARS_MAX],
            "status": call.outcome,
            "ms": round(took_s * 1e3),
            "model": call.model,
            "prompt_tokens": ends[0].usage.prompt_tokens if ends else call.embedded_tokens,
            "completion_tokens": completion_tokens,
            "stop_reasons": [end.stop_reason.value for end in ends],
            "ignored": _ignored_names(call),
            "key": call.key.name,
        }
        fields = {name: value for name, value in fields.items() if value}
        text = ", ".join(f"{name} {value}" for name, value in fields.items())
        _log.info("%s", text, extra={"fields": fields | {"request_id": number}})


def _hostname(host_header: bytes) -> str:
    try:
        return (urlsplit(f"//{host_header.decode('latin-1')}").hostname or "").lower()
    except ValueError:
        return ""


def _ignored_names(call: Call) -> str:
    """Names of the fields of a request's body that had no effect, as far as a header can hold them."""
    return ", ".join(islice(filter(_FIELD_NAME.fullmatch, call.ignored), _IGNORED_MAX))


class _JsonFormatter(logging.Formatter):
    """Each record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"time": at, "level": record.levelname.lower()}
        fields |= getattr(record, "fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """Write the log of this package, requests included, to standard error."""
    handler, log = logging.StreamHandler(), logging.getLogger(__package__)
    text = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if form == "json" else text)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
