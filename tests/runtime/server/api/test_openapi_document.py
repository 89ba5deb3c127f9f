"""The OpenAPI document is true: what it allows is taken, what it does not refused, answers are as it says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from thirteen.runtime.server.api.openapi_document import operations
from thirteen.runtime.server.app import Server
from thirteen.runtime.server.request_limits import RequestLimits

EXAMPLES = 25  # of each operation; that many come to some seconds
UNDERSTOOD = [
    "2xx",
    "400",
    "404",
]  # well formed, but not to be done: an empty question, a model of no such name


@pytest.fixture(scope="module")
def document(tiny_server):
    schema = schemathesis.openapi.from_url(f"{tiny_server.url}/openapi.json")
    schema.config.checks.positive_data_acceptance.expected_statuses = UNDERSTOOD
    return schema


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("served", operations(RequestLimits()), ids=lambda operation: operation.name)
def test_what_is_served_is_what_the_document_says(document, served, mode):
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(document[served.path][served.method].as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(timeout=60)

    if served.body or mode is schemathesis.GenerationMode.POSITIVE:  # without a body, nothing can be wrong
        check()


def test_every_route_is_in_the_document(tiny_server):
    with tiny_server.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    names = {method.pop("operationId") for path in paths.values() for method in path.values()}
    assert names == {name for name in vars(Server) if not name.startswith("_")} - {"operations"}
