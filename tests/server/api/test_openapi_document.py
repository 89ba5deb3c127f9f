"""The OpenAPI document is correct: a strict server accepts what it allows, and rejects everything else."""

from inspect import iscoroutinefunction

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.api.operations import OPERATIONS
from thirteen.server.app import ENDPOINTS

from ..serving import serve_engine

pytestmark = pytest.mark.slow

EXAMPLES = 25  # per operation; together they take a few seconds
# A well-formed request may still fail: an empty question, an unknown model.
EXPECTED_STATUSES = ["2xx", "400", "404"]


@pytest.fixture(scope="module")
def document(tiny_server):
    limits = RequestLimits(strict=True)
    with serve_engine(tiny_server.service.engine, name="tiny", limits=limits) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        schema.config.checks.positive_data_acceptance.expected_statuses = EXPECTED_STATUSES
        rejection = schema.config.checks.negative_data_rejection
        rejection.expected_statuses = [*rejection.expected_statuses, "413"]  # a body that is too large
        yield schema


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_server_conforms_to_document(document, operation, mode):
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(document[operation.path][operation.method].as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(timeout=60)

    if operation.body or mode is schemathesis.GenerationMode.POSITIVE:  # without a body nothing is invalid
        check()


def test_document_contains_every_route(tiny_server):
    with tiny_server.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    names = [method.pop("operationId") for path in paths.values() for method in path.values()]
    methods = [
        name
        for endpoints in ENDPOINTS
        for name, value in vars(endpoints).items()
        if iscoroutinefunction(value) and not name.startswith("_")
    ]
    assert sorted(names) == sorted(methods)
