"""Starlette application: the routes of all APIs and of the web page, middleware and error handlers."""

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..web.static_files import page_routes
from .access.access_middleware import CORS_OPTIONS, AccessMiddleware
from .access.api_keys import ApiKeys
from .access.request_limits import RequestLimits
from .endpoints.answers import AnswerEndpoints
from .endpoints.endpoints import Endpoints
from .endpoints.ollama import OllamaEndpoints
from .endpoints.openai import OpenAiEndpoints
from .endpoints.responses import ResponsesEndpoints
from .endpoints.status import StatusEndpoints
from .http_errors import CLIENT_CLOSED_REQUEST, HttpError
from .served_models import ServedModels

ENDPOINTS: tuple[type[Endpoints], ...] = (
    OpenAiEndpoints,
    ResponsesEndpoints,
    AnswerEndpoints,
    OllamaEndpoints,
    StatusEndpoints,
)


def create_app(
    service: ServedModels,
    limits: RequestLimits,
    *,
    keys: ApiKeys | None = None,
    allowed_hosts: Collection[str] | None = None,
    origins: Sequence[str] = (),
) -> Starlette:
    """Create the application: API routes, web page, middleware and error handlers.

    Args:
        service: the models.
        limits: limits of a request.
        keys: accepted API keys; None disables authentication.
        allowed_hosts: accepted names in the Host header; None accepts any.
        origins: origins allowed by CORS, for example "https://example.org"; "*" allows all.
    """
    access = Middleware(AccessMiddleware, metrics=service.metrics, keys=keys, allowed_hosts=allowed_hosts)
    cors = Middleware(CORSMiddleware, allow_origins=origins, **CORS_OPTIONS)
    api_routes = [
        Route(operation.route, getattr(endpoints, operation.name), methods=[operation.method])
        for endpoints in (each(service, limits) for each in ENDPOINTS)
        for operation in endpoints.operations
    ]
    app = Starlette(
        routes=[*api_routes, *page_routes()],
        middleware=[cors, access] if origins else [access],
        exception_handlers={HTTPException: _handle_http_exception, ClientDisconnect: _handle_disconnect},
    )
    app.router.redirect_slashes = False  # an unknown path with a trailing slash is 404, not a redirect
    return app


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    message = f"{request.method} {path}: {error.detail}"
    return HttpError(error.status_code, message).response(path, error.headers)


async def _handle_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
