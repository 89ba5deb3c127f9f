"""Starlette application: the routes of all APIs and of the web page, middleware and error handlers."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..web.static_files import page_routes
from .access.access_middleware import CORS_OPTIONS, AccessMiddleware
from .access.listen_config import ListenConfig
from .access.request_limits import RequestLimits
from .api.status import FORMATS
from .engine_service import EngineService
from .http_errors import CLIENT_CLOSED_REQUEST, HttpError


def create_app(service: EngineService, listen: ListenConfig, limits: RequestLimits) -> Starlette:
    """Create the application: API routes, web page, middleware and error handlers."""
    limits = limits.for_context(service.engine.context)
    access = Middleware(AccessMiddleware, service=service, listen=listen)
    cors = Middleware(CORSMiddleware, allow_origins=listen.origins, **CORS_OPTIONS)
    api_routes = [
        # Names of models may contain slashes.
        Route(operation.path.replace("{model}", "{model:path}"), handler, methods=[operation.method])
        for endpoints in (each(service, limits) for each in FORMATS)
        for operation in endpoints.operations
        for handler in [endpoints.handler(operation)]
    ]
    app = Starlette(
        routes=[*api_routes, *page_routes()],
        middleware=[cors, access] if listen.origins else [access],
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
