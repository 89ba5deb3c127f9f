"""The log of requests: a line for each that posts something, without any of its text."""

import logging
import re
from time import monotonic

from starlette.types import Scope

from ..errors import as_line

IGNORED_HEADER = "X-Thirteen-Ignored"  # the fields of the request that had no effect
POINTER_CHARS_MAX = 160
# Of a field, and the JSON pointer of a keyword in its schema.
_FIELD_NAME = re.compile(rf"[\w.-]{{1,64}}|[\w.-]{{1,80}}#[\w.~%/$-]{{1,{POINTER_CHARS_MAX}}}", re.ASCII)
_LINE_CHARS_MAX = 100  # of a path, which a client chooses

_log = logging.getLogger(__name__)


def ignored_names(scope: Scope) -> list[str]:
    """Names of the fields of a request's body that had no effect, as far as a header can hold them."""
    names: list[str] = scope.get("state", {}).get("ignored", [])
    return [name for name in dict.fromkeys(names) if _FIELD_NAME.fullmatch(name)]


def log_request(scope: Scope, status: int, began: float) -> None:
    """Log a request that has ended: path, model, tokens, time, status, and the fields without effect.

    Args:
        scope: its scope, in which the endpoints have noted model and handles.
        status: status of the response.
        began: monotonic() at its start.
    """
    if scope["method"] != "POST" or not _log.isEnabledFor(logging.INFO):
        return
    state = scope.get("state", {})
    usages = [
        handle.wait(0).usage for handle in state.get("handles", ()) if handle.done and not handle.failed
    ]
    parts = [as_line(scope["path"])[:_LINE_CHARS_MAX], str(status), f"{(monotonic() - began) * 1e3:.0f} ms"]
    if usages:
        completion = sum(usage.completion_tokens for usage in usages)
        parts.append(f"{state['model']} {usages[0].prompt_tokens} + {completion} tokens")
    if names := ignored_names(scope):
        parts.append(f"ignored {', '.join(names)}")
    _log.info("%s", ", ".join(parts))


def log_to_stderr() -> None:
    """Write the log of this package, requests included, to standard error."""
    handler, log = logging.StreamHandler(), logging.getLogger(__package__)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
