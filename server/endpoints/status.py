"""Endpoints that describe the server: liveness, readiness, metrics and the OpenAPI document."""

from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..api.operations import STATUS_OPERATIONS, openapi_document
from ..metrics import PROMETHEUS_TYPE
from .endpoints import Endpoints


class StatusEndpoints(Endpoints):
    """/health, /ready, /metrics and /openapi.json."""

    operations = STATUS_OPERATIONS

    async def health(self, _: Request) -> Response:
        """GET /health: liveness."""
        failed = self.service.failed
        return _status_response("failed" if failed else "ok", ok=not failed)

    async def ready(self, _: Request) -> Response:
        """GET /ready: readiness."""
        return _status_response("ready" if self.service.ready else "not ready", ok=self.service.ready)

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(self.service.metrics.render(), media_type=PROMETHEUS_TYPE)

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(self._document)

    @cached_property
    def _document(self) -> dict[str, Any]:
        return openapi_document(self.limits)


def _status_response(status: str, *, ok: bool) -> Response:
    return JSONResponse({"status": status}, 200 if ok else 503)
