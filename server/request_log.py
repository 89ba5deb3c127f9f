"""The log of requests: a line for each that posts something, without any of its text."""

import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from starlette.types import Scope

from ..errors import as_line
from ..runtime.answer import SequenceEnd
from .engine_service import Call

LogForm = Literal["text", "json"]
ID_HEADER = "X-Request-ID"
IGNORED_HEADER = "X-Thirteen-Ignored"  # the fields of the request that had no effect
_FIELD_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_LINE_CHARS_MAX = 100  # of a path, which a client chooses

_log = logging.getLogger(__name__)


def ignored_names(call: Call) -> str:
    """Names of the fields of a request's body that had no effect, as far as a header can hold them."""
    return ", ".join(name for name in dict.fromkeys(call.ignored) if _FIELD_NAME.fullmatch(name))


def request_id(scope: Scope) -> str:
    """Id of a request: the one in its header, or else a new one."""
    given: bytes = dict(scope["headers"]).get(ID_HEADER.lower().encode(), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid4().hex


def log_request(call: Call, took_s: float, number: str, ends: Sequence[SequenceEnd]) -> None:
    """Log a request that has ended: path, status, time, model, tokens, and the fields without effect."""
    if call.request.method != "POST" or not _log.isEnabledFor(logging.INFO):
        return
    fields = {
        "path": as_line(call.request.url.path)[:_LINE_CHARS_MAX],
        "status": call.outcome,
        "ms": round(took_s * 1e3),
        "model": call.model,
        "prompt_tokens": ends[0].usage.prompt_tokens if ends else call.embedded_tokens,
        "completion_tokens": sum(end.usage.completion_tokens for end in ends),
        "stop_reasons": [end.stop_reason.value for end in ends],
        "ignored": ignored_names(call),
        "key": call.key.name,
        "request_id": number,
    }
    told = {name: value for name, value in fields.items() if value}
    text = ", ".join(f"{name} {value}" for name, value in list(told.items())[:-1])
    _log.info("%s", text, extra={"fields": told})


class _JsonFormatter(logging.Formatter):
    """Each record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"time": at, "level": record.levelname.lower()}
        fields |= getattr(record, "fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def log_to_stderr(form: LogForm) -> None:
    """Write the log of this package, requests included, to standard error."""
    handler, log = logging.StreamHandler(), logging.getLogger(__package__)
    text = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if form == "json" else text)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
