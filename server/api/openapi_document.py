"""The OpenAPI document, made from the table of operations and the models of their bodies."""

import re
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ..access.request_limits import RequestLimits
from ..metrics import PROMETHEUS_TYPE
from ..streams import EVENT_STREAM_TYPE
from .operations import OPERATIONS, Operation
from .request_body import JSON_TYPE
from .request_models import limited
from .response_models import Status, StreamEvent

_REFERENCE = "#/components/schemas/{model}"


def openapi_document(limits: RequestLimits) -> dict[str, Any]:
    """OpenAPI 3.1 document of all operations; the limits are part of the request bodies."""
    models: dict[type[BaseModel], JsonSchemaMode] = {}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        models[operation.error] = "serialization"
        if operation.response:
            models[operation.response] = "serialization"
        if operation.stream_type:
            models[StreamEvent] = "serialization"
        if operation.body:
            models[limited(operation.body, limits)] = "validation"
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation_object(operation)
    _, definitions = models_json_schema([*models.items()], ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thirteen", "version": version("thirteen")},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _operation_object(operation: Operation) -> dict[str, Any]:
    access_errors = (403, 401) if operation.requires_key else (403,)
    statuses = sorted({*access_errors, *operation.errors})
    result: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Success.", "content": _success_content(operation)},
            **{str(status): _error_response(status, operation) for status in statuses},
        },
    }
    if operation.requires_key:
        result["security"] = [{"key": []}, {}]  # {}: a server without keys needs none
    if operation.body is not None:
        result["requestBody"] = {
            "required": True,
            "content": {JSON_TYPE: {"schema": _reference(operation.body)}},
        }
    if names := re.findall(r"{(\w+)}", operation.path):
        result["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return result


def _success_content(operation: Operation) -> dict[str, Any]:
    if operation.response is None:
        return {PROMETHEUS_TYPE: {"schema": {"type": "string"}}}
    content = {JSON_TYPE: {"schema": _reference(operation.response)}}
    if operation.stream_type:
        part = StreamEvent if operation.stream_type == EVENT_STREAM_TYPE else operation.response
        content[operation.stream_type] = {"schema": _reference(part)}
    return content


def _error_response(status: int, operation: Operation) -> dict[str, Any]:
    schema: dict[str, Any] = _reference(operation.error)
    if operation.response is Status and status == 503:
        schema = {"anyOf": [_reference(Status), schema]}
    return {"description": HTTPStatus(status).phrase, "content": {JSON_TYPE: {"schema": schema}}}
