"""Routing by prefix and adapter, and the router's own responses, without a cluster."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from thirteen.cluster.replica import ReplicaConfig
from thirteen.cluster.router import Router, RoutingKey
from thirteen.runtime.request import BASE
from thirteen.server.access.api_keys import ApiKeys
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.serve import ListenConfig

from ..server.serving import open_engine, serve_engine

MODELS = {"tiny": BASE, "other": "other"}


class Stream:
    """A replica's response, or its failure."""

    def __init__(self, failure: Exception | None) -> None:
        self._failure = failure

    async def __aiter__(self) -> AsyncIterator[list[dict[str, Any]]]:
        if self._failure:
            raise self._failure
        yield [{"type": "http.response.start", "status": 200, "headers": []}]

    def cancel(self) -> None:
        """Nothing runs."""


class Replicas:
    """A deployment's handle, whose replicas fail in turn and then respond."""

    def __init__(self, *failures: Exception) -> None:
        self.respond, self._failures = self, list(failures)

    def options(self, **_: object) -> "Replicas":
        return self

    def remote(self, *_: object) -> Stream:
        return Stream(self._failures.pop(0) if self._failures else None)


def routed(
    *failures: Exception, headers: dict[str, str] | None = None, method: str = "POST", **config: Any
) -> httpx.Response:
    """Response of a router, which is called as Ray Serve calls it."""
    listen = ListenConfig("0.0.0.0", 8080, insecure=True, **config)
    router = Router(Replicas(*failures), ReplicaConfig(MODELS, {}, RequestLimits(), listen))

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        response = await router(Request(scope, receive))
        await response(scope, receive, send)

    async def send_request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(serve), base_url="http://test") as client:
            return await client.request(method, "/v1/answer", headers=headers, json={})

    return asyncio.run(send_request())


def routed_status(*failures: Exception) -> int:
    return routed(*failures).status_code


def test_a_request_whose_replica_dies_goes_to_another_once():
    from ray.exceptions import RayActorError

    assert routed_status(RayActorError()) == 200
    with pytest.raises(RayActorError):
        routed_status(RayActorError(), RayActorError())


def test_a_request_that_no_replica_takes_is_429():
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError

    full = BackPressureError(num_queued_requests=8, max_queued_requests=8)
    assert routed_status(full) == routed_status(RayActorError(), full) == 429


ORIGIN = "https://app.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    "Access-Control-Request-Private-Network": "true",
}


def test_a_preflight_gets_the_response_of_one_server(tiny):
    """It was 401, because a browser sends it without the API key: no page could use the API."""
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(tiny, context=256))
        server = stack.enter_context(serve_engine(engine, keys=["key"], origins=[ORIGIN]))
        http = stack.enter_context(server.http())
        for method, headers, status in (
            ("OPTIONS", PREFLIGHT, 200),
            ("OPTIONS", PREFLIGHT | {"Origin": "https://evil.example"}, 400),
            ("POST", {"Origin": ORIGIN}, 401),
        ):
            one = http.request(method, "/v1/answer", headers=headers, json={})
            response = routed(method=method, headers=headers, keys=ApiKeys(["key"]), origins=[ORIGIN])
            assert response.status_code == one.status_code == status
            del one.headers["date"]  # its server's, as is the id of a request that the router refuses
            one.headers.pop("x-request-id", None)
            assert response.headers == one.headers


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=9)}
    ),
    max_size=6,
)


@given(messages=MESSAGES, more=MESSAGES, model=st.sampled_from([*MODELS, "unknown", None]))
def test_the_next_turn_is_routed_to_the_same_replica(messages, more, model):
    first, next_ = (
        RoutingKey.from_body(json.dumps({"messages": conversation, "model": model}).encode(), MODELS)
        for conversation in (messages, [*messages, *more, {"role": "user", "content": "And?"}])
    )
    if any(message["role"] == "user" for message in messages):
        assert next_.route in first.keys
        assert set(first.keys) == set(next_.keys)
    adapter = ("adapter other",) if model == "other" else ()
    assert first.keys[: len(adapter)] == adapter
    assert first.route in ("", *first.keys)


def test_a_body_of_any_depth_has_a_routing_key():
    """Writing JSON takes more of the stack than reading it, so some bodies could be read and not written."""
    for depth in range(1, sys.getrecursionlimit() + 100):
        content = "[" * depth + "]" * depth
        body = f'{{"messages": [{{"role": "user", "content": {content}}}]}}'.encode()
        assert isinstance(RoutingKey.from_body(body, MODELS), RoutingKey)


def test_routes_differ_by_first_message_and_adapter():
    def route(*contents: str, model: str = "tiny") -> str:
        messages = [{"role": "user", "content": content} for content in contents]
        return RoutingKey.from_body(json.dumps({"messages": messages, "model": model}).encode(), MODELS).route

    assert route("a") == ""
    assert route("a", model="other") == route("a", model="other:latest") == "adapter other"
    assert route("a", model="tiny:latest") == route("a", model="other:v2") == ""
    assert len({route("a", "c"), route("b", "c"), route("a", "c", model="other")}) == 3
    assert route("a", "c", model="other") == route("a", "c", model="other:latest")
    assert route("a", "c") == route("a", "d", "e")
