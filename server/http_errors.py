"""HTTP error responses in the format of the OpenAI API; in that of Ollama's under its paths."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from .. import errors

MESSAGE_CHARS_MAX = 600  # a message may quote input of the client
OLLAMA_PATHS = "/api/"
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a disconnected client; only metrics and log show it

_log = logging.getLogger(__name__)

# Error codes that are not the name of the status; OpenAI's clients know some of them.
_CODES = {
    **{400: "invalid_request", 401: "invalid_api_key", 413: "request_too_large", 422: "invalid_value"},
    **{429: "rate_limit_exceeded", 499: "client_closed_request"},
    **{500: "internal_error", 503: "unavailable"},
}
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}


class HttpError(errors.ThirteenError):
    """An error that is sent to the client as an HTTP response.

    Attributes:
        status: HTTP status code.
        message: one line of at most MESSAGE_CHARS_MAX.
        code: machine-readable error code; by default that of the status.
        param: name of the invalid field, if any.
        headers: headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.message = status, param, errors.as_line(message)[:MESSAGE_CHARS_MAX]
        self.headers = {**_HEADERS.get(status, {}), **(headers or {})}
        self.code = code or _CODES.get(status) or HTTPStatus(status).name.lower()

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """JSON body of the response."""
        kind = "rate_limit_error" if self.status == 429 else "invalid_request_error"
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, path: str) -> JSONResponse:
        """HTTP response to a request for a path."""
        body = {"error": self.message} if path.startswith(OLLAMA_PATHS) else self.body
        return JSONResponse(body, self.status, self.headers)


def check_field(valid: object, param: str, problem: str, status: int = 400) -> None:
    """Raise HttpError unless a field of a request body is valid; the message is its path and the problem."""
    if not valid:
        raise HttpError(status, f"{param} {problem}", param=param)


def to_http_error(error: BaseException) -> HttpError:
    """Convert an exception for the client; the details of an internal error go only to the log."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, HTTPException):
        return HttpError(error.status_code, error.detail, headers=error.headers)
    statuses = ((errors.BusyError, 429), (errors.ClosedError, 503), (errors.RequestError, 400))
    for kind, status in (*statuses, (ClientDisconnect, CLIENT_CLOSED_REQUEST)):
        if isinstance(error, kind):
            code = "context_length_exceeded" if isinstance(error, errors.PromptLengthError) else ""
            return HttpError(status, str(error), code=code)
    _log.error("failed: %s", error, exc_info=None if isinstance(error, errors.ThirteenError) else error)
    return HttpError(500, "internal server error; see the server's log")
