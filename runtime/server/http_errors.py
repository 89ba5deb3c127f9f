"""What the server will not do for a client, told in OpenAI's shape of an error."""

import logging
from collections.abc import Mapping

from starlette.responses import JSONResponse

from ...errors import BusyError, PromptLengthError, RequestError, ThirteenError

MESSAGE_MAX = 600  # characters; a client's own words come back in it
RETRY_S = 1  # after which a client that found no place may ask again: some answer has ended by then

_log = logging.getLogger(__name__)

# The type and code of each status, as OpenAI's clients know them; a refusal may have a more telling code.
KINDS = {
    400: ("invalid_request_error", "invalid_request"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    422: ("invalid_request_error", "invalid_value"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
}
_HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    **{code: {"Retry-After": str(RETRY_S)} for code in (429, 503)},
}


class HttpError(ThirteenError):
    """A request over HTTP that is not carried out.

    Attributes:
        status: of the response.
        message: what is wrong and where.
        code: a word for it that a program can compare.
        param: the field that is meant, if it is one.
    """

    def __init__(self, status: int, message: str, *, code: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = None if param is None else _readable(param)
        self.code = code or KINDS[status][1]

    @property
    def message(self) -> str:
        """In one line, and of characters that every client can read."""
        line = " ".join(_readable(str(self)).split())
        return line if len(line) <= MESSAGE_MAX else f"{line[:MESSAGE_MAX]}…"

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The error, as JSON has it."""
        kind, _ = KINDS[self.status]
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The response that tells of it."""
        return JSONResponse(self.body, self.status, {**_HEADERS.get(self.status, {}), **(headers or {})})


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def http_error(error: BaseException) -> HttpError:
    """What to tell a client of an error: all of what it can mend, and of others only that they happened."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, BusyError):
        return HttpError(429, str(error))
    if isinstance(error, PromptLengthError):
        return HttpError(400, str(error), code="context_length_exceeded")
    if isinstance(error, RequestError):
        return HttpError(400, str(error))
    _log.error("failed: %s", error, exc_info=None if isinstance(error, ThirteenError) else error)
    return HttpError(500, "the server failed at this; its log tells more")
