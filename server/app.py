"""Starlette application: the routes of all formats and of the web page, and the OpenAPI document."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from inspect import get_annotations
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..web.static_files import page_routes
from .access import CALL, CORS_OPTIONS, AccessMiddleware
from .api import answers, embeddings, ollama, openai, responses
from .api.bodies import JSON_TYPE, read_body
from .config import ListenConfig
from .engine_service import Call, EngineService
from .metrics import PROMETHEUS_TYPE

_REFERENCE = "#/components/schemas/{model}"
_RESPONSES = {"200": {"description": "Success."}, "default": {"description": "An error, in one line."}}

Respond = Callable[..., Awaitable[Response]]  # of a call, and of the body of a POST


async def health(call: Call) -> Response:
    """Check liveness."""
    failed = call.service.engine.closed
    return JSONResponse({"status": "failed" if failed else "ok"}, 503 if failed else 200)


async def ready(call: Call) -> Response:
    """Check readiness."""
    accepts = not (call.service.draining or call.service.engine.closed)
    return JSONResponse({"status": "ready" if accepts else "not ready"}, 200 if accepts else 503)


async def metrics(call: Call) -> Response:
    """Prometheus metrics."""
    return Response(call.service.metrics.render(), media_type=PROMETHEUS_TYPE)


async def openapi(_: Call) -> Response:
    """This document."""
    return JSONResponse(openapi_document())


ROUTES: dict[str, Respond] = {  # POST if they take a body, else GET
    "/v1/models": openai.models,
    "/v1/models/{model:path}": openai.model,  # names may contain slashes
    "/api/tags": ollama.tags,
    "/api/version": ollama.server_version,
    "/health": health,
    "/ready": ready,
    "/metrics": metrics,
    "/openapi.json": openapi,
    "/v1/chat/completions": openai.chat,
    "/v1/completions": openai.completion,
    "/v1/responses": responses.response,
    "/v1/embeddings": embeddings.embeddings,
    "/v1/answer": answers.answer,
    "/v1/check": answers.check,
    "/api/chat": ollama.chat,
    "/api/generate": ollama.generate,
    "/api/show": ollama.show,
    "/api/embed": embeddings.ollama_embed,
}


def create_app(service: EngineService, listen: ListenConfig) -> Starlette:
    """Create the application: API routes, web page, middleware and error handlers."""
    access = Middleware(AccessMiddleware, service=service, listen=listen)
    cors = Middleware(CORSMiddleware, allow_origins=listen.origins, **CORS_OPTIONS)
    routes = [Route(path, _endpoint(respond), methods=[_method(respond)]) for path, respond in ROUTES.items()]
    app = Starlette(
        routes=[*routes, *page_routes()],
        middleware=[cors, access] if listen.origins else [access],
        exception_handlers={HTTPException: _raise},
    )
    app.router.redirect_slashes = False  # an unknown path with a trailing slash is 404, not a redirect
    return app


def _body_of(respond: Respond) -> Any:
    return get_annotations(respond).get("body")


def _method(respond: Respond) -> str:
    return "POST" if _body_of(respond) else "GET"


def _endpoint(respond: Respond) -> Callable[[Request], Awaitable[Response]]:
    body = _body_of(respond)

    async def endpoint(request: Request) -> Response:
        call: Call = request.scope[CALL]
        if not body:
            return await respond(call)
        asked = await read_body(call, body)
        if "model" in body.model_fields:
            call.choose_model(asked.model)
        return await respond(call, asked)

    return endpoint


async def _raise(_: Request, error: Exception) -> Response:
    raise error  # the middleware makes the response


def openapi_document() -> dict[str, Any]:
    """OpenAPI 3.1 document of all routes, with the models that check the request bodies."""
    bodies = [body for body in map(_body_of, ROUTES.values()) if body]
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
    paths: dict[str, Any] = {}
    for path, respond in ROUTES.items():
        operation: dict[str, Any] = {"summary": respond.__doc__, "responses": _RESPONSES}
        if body := _body_of(respond):
            schema = {"$ref": _REFERENCE.format(model=body.__name__)}
            operation["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
        paths[path.replace(":path", "")] = {_method(respond).lower(): operation}
    info = {"title": "Thirteen", "version": version("thirteen")}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas["$defs"]}}
