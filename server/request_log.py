"""The log of requests: a line for each that posts something, without any of its text."""

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Literal
from uuid import uuid4

from anyio import to_thread
from starlette.types import Scope

from ..errors import as_line
from ..runtime.engine.handle import Handle
from ..runtime.request import SequenceEnd

LogForm = Literal["text", "json"]
ID_HEADER = "X-Request-ID"
IGNORED_HEADER = "X-Thirteen-Ignored"  # the fields of the request that had no effect
POINTER_CHARS_MAX = 160
# Of a field, and the JSON pointer of a keyword in its schema.
_FIELD_NAME = re.compile(rf"[\w.-]{{1,64}}|[\w.-]{{1,80}}#[\w.~%/$-]{{1,{POINTER_CHARS_MAX}}}", re.ASCII)
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_ENDING_S = 10.0
_LINE_CHARS_MAX = 100  # of a path, which a client chooses

_log = logging.getLogger(__name__)


def ignored_names(scope: Scope) -> list[str]:
    """Names of the fields of a request's body that had no effect, as far as a header can hold them."""
    names: list[str] = scope.get("state", {}).get("ignored", [])
    return [name for name in dict.fromkeys(names) if _FIELD_NAME.fullmatch(name)]


def request_id(scope: Scope) -> str:
    """Id of a request: the one in its header, or else a new one."""
    given: bytes = dict(scope["headers"]).get(ID_HEADER.lower().encode(), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid4().hex


async def log_request(scope: Scope, status: int, began: float, who: Mapping[str, object]) -> None:
    """Log a request that has ended: path, model, tokens, time, status, and the fields without effect.

    Args:
        scope: its scope, in which the endpoints have noted model and handles.
        status: status of the response.
        began: monotonic() at its start.
        who: more for the log as JSON, which also has why each answer ended.
    """
    if scope["method"] != "POST" or not _log.isEnabledFor(logging.INFO):
        return
    state = scope.get("state", {})
    path, ms = as_line(scope["path"])[:_LINE_CHARS_MAX], (monotonic() - began) * 1e3
    handles = state.get("handles", ())
    found = [_end(one) if one.done else await to_thread.run_sync(_end, one) for one in handles]
    ends = [end for end in found if end]
    fields: dict[str, object] = {**who, "path": path, "status": status, "ms": round(ms)}
    parts = [path, str(status), f"{ms:.0f} ms"]
    if ends:
        prompt, completion = ends[0].usage.prompt_tokens, sum(end.usage.completion_tokens for end in ends)
        parts.append(f"{state['model']} {prompt} + {completion} tokens")
        fields |= {"model": state["model"], "prompt_tokens": prompt, "completion_tokens": completion}
        fields["stop_reasons"] = [end.stop_reason.value for end in ends]
    if embedded := state.get("embedded"):
        parts.append(f"{state['model']} {embedded} tokens")
        fields |= {"model": state["model"], "prompt_tokens": embedded}
    if names := ignored_names(scope):
        parts.append(f"ignored {', '.join(names)}")
        fields["ignored"] = names
    _log.info("%s", ", ".join(parts), extra={"fields": fields})


def _end(handle: Handle) -> SequenceEnd | None:
    """The end of an answer; one that was cut off with its response ends within a step."""
    with suppress(Exception):  # it has failed
        return handle.wait(_ENDING_S)
    return None


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
