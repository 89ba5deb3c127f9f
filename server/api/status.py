"""Liveness, readiness, metrics, and the OpenAPI document of all formats."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..metrics import PROMETHEUS_TYPE
from .answers import AnswerEndpoints
from .bodies import JSON_TYPE
from .embeddings import EmbeddingEndpoints
from .endpoints import Endpoints, Operation
from .ollama import OllamaEndpoints
from .openai import OpenAiEndpoints
from .responses import ResponsesEndpoints

_REFERENCE = "#/components/schemas/{model}"


class StatusEndpoints(Endpoints):
    """/health, /ready, /metrics and /openapi.json."""

    operations = (
        Operation("GET", "/health", "health"),
        Operation("GET", "/ready", "ready"),
        Operation("GET", "/metrics", "metrics"),
        Operation("GET", "/openapi.json", "openapi"),
    )

    async def health(self, _: Request) -> Response:
        """Check liveness."""
        failed = self.service.failed
        return JSONResponse({"status": "failed" if failed else "ok"}, 503 if failed else 200)

    async def ready(self, _: Request) -> Response:
        """Check readiness."""
        ready = self.service.ready
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        """Prometheus metrics."""
        return Response(self.service.metrics.render(), media_type=PROMETHEUS_TYPE)

    async def openapi(self, _: Request) -> Response:
        """This document."""
        return JSONResponse(openapi_document(FORMATS))


FORMATS: tuple[type[Endpoints], ...] = (
    OpenAiEndpoints,
    ResponsesEndpoints,
    EmbeddingEndpoints,
    AnswerEndpoints,
    OllamaEndpoints,
    StatusEndpoints,
)


def openapi_document(formats: Sequence[type[Endpoints]]) -> dict[str, Any]:
    """OpenAPI 3.1 document of the operations, with the models that check the request bodies."""
    paths: dict[str, dict[str, Any]] = {}
    bodies = [operation.body for each in formats for operation in each.operations if operation.body]
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
    for each in formats:
        for operation in each.operations:
            described = _operation_object(operation, getattr(each, operation.name).__doc__)
            paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thirteen", "version": version("thirteen")},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],  # {}: a server without keys needs none
    }


def _operation_object(operation: Operation, summary: str) -> dict[str, Any]:
    responses = {"200": {"description": "Success."}, "default": {"description": "An error, in one line."}}
    described: dict[str, Any] = {"operationId": operation.name, "summary": summary, "responses": responses}
    if operation.body:
        schema = {"$ref": _REFERENCE.format(model=operation.body.__name__)}
        described["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    if "{model}" in operation.path:
        parameter = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        described["parameters"] = [parameter]
    return described
