"""Who may ask the server, and how much: keys with their limits, hosts, origins, and the limits' file."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from thirteen.errors import FileError, RequestError, ThirteenError
from thirteen.server import config
from thirteen.server.config import FILE_BYTES_MAX, ApiKeys, ListenConfig, RequestLimits

from .serving import WORK, refused

ROOT = Path(__file__).parents[2]
ONE, TWO = (f"{name}-of-more-than-twenty-characters" for name in ("one", "two"))


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def write_keys(folder, text):
    (folder / "keys").write_text(text)
    return ApiKeys(folder / "keys")


def test_a_key_is_required_but_for_probes_and_only_a_key_of_its_own_reads_the_metrics(serving, tmp_path):
    """One client's key told it the tokens, cache hits and times of the others."""
    client = serving(keys=write_keys(tmp_path, f"{ONE}\nmetrics: {TWO}\n"))
    for path in ("/v1/models", "/metrics", "/v1/nothing", "/api/tags"):
        for headers in ({}, bearer("wrong"), {"Authorization": ONE}):
            response = client.get(path, headers=headers)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
    assert refused(client.post("/v1/completions", json={}), 401)
    for path in ("/health", "/ready", "/openapi.json", "/"):
        assert client.get(path).status_code == 200
    for path, statuses in (("/metrics", [403, 200, 401]), ("/v1/models", [200, 401, 401])):
        assert [client.get(path, headers=bearer(key)).status_code for key in (ONE, TWO, "3")] == statuses


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"{ONE}\n{ONE[:19]}".encode(), "line 2: a key of 19 characters, at least 20"),
        (f"{ONE}\nmetrics: \n".encode(), "line 2: a key of 0 characters"),
        (f"#\nmetrics: {TWO}".encode(), "contains no key"),
        (b"\xff", "UTF-8"),
        ("é".encode() * (FILE_BYTES_MAX // 2) + b"\n" + ONE.encode(), "more than 1,048,576 bytes"),
        (f"{ONE} words".encode(), "line 1: words is not one of requests_per_minute, tokens_per_day"),
        (f"a: {ONE} tokens_per_day=x".encode(), "line 1: tokens_per_day must be a valid integer, .*'x'"),
        (f"{ONE} requests_per_minute=0".encode(), "requests_per_minute must be greater than or equal to 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_key_file_is_refused_and_leaves_the_keys_as_they_were(content, reason, tmp_path):
    keys = write_keys(tmp_path, f"alice: {ONE}\n")
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(FileError, match=reason):
        keys.reload()
    assert keys.identify(f"Bearer {ONE}".encode()).name == "alice"


def test_keys_have_names_and_only_line_feeds_end_their_lines(tmp_path):
    """Other line ends of Unicode made two short keys of a long one."""
    odd = "o\u2028n\x0be\x1cs\x85" * 3
    (tmp_path / "keys").write_bytes(f"\ufeff# ours\n\n  {odd}  \r\nalice: {TWO}\n".encode())
    keys = ApiKeys(tmp_path / "keys")
    first, second = (keys.identify(f"bearer {key}".encode()) for key in (odd, TWO))
    assert (first.name, second.name) == ("line 3", "alice") and first.namespace != second.namespace
    for wrong in (b"Bearer o", b"Bearer # ours", b"Bearer", b"", odd.encode()):
        assert keys.identify(wrong) is None


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_a_key_file_that_all_can_read_is_warned_of(tmp_path):
    path = tmp_path / "keys"
    path.write_text("one")
    for mode, warned in ((0o604, True), (0o640, False)):
        path.chmod(mode)
        assert bool(ApiKeys.warnings(path)) is warned


def test_a_key_has_limits_of_its_own(serving, tmp_path, monkeypatch):
    now = [1_000_000_000.0]
    monkeypatch.setattr(config, "time", lambda: now[0])
    lines = (f"fast: {ONE} requests_per_minute=2", f"long: {TWO} tokens_per_day=5 adapters=a")
    client = serving(keys=write_keys(tmp_path, "\n".join(lines)))

    def ask(key, **fields):
        return client.post("/v1/completions", json=WORK | fields, headers=bearer(key))

    assert [ask(ONE).status_code for _ in range(3)] == [200, 200, 429]
    now[0] += 10
    slow_down = ask(ONE)
    assert refused(slow_down, 429)["message"] == "this API key has used its 2 requests per minute"
    assert slow_down.headers["retry-after"] == "10", "the minute has begun 50 s ago"
    now[0] += 10
    assert ask(ONE).status_code == 200
    assert refused(ask(TWO, model="b"), 403)["message"] == "this API key may not use the model 'b'"
    assert [ask(TWO, model=model).status_code for model in ("a", "tiny", "tiny")] == [200, 200, 429]
    spent = ask(TWO)
    assert refused(spent, 429)["message"] == "this API key has used its 5 tokens per day"
    now[0] += int(spent.headers["retry-after"])
    assert ask(TWO).status_code == 200, "another day"


def test_a_key_learns_nothing_of_another_keys_prompts(serving, tmp_path):
    """40 requests read a number in another key's prompt."""
    secret = "the code of the safe in the hall is 4711, and no other"
    client = serving(keys=write_keys(tmp_path, f"{ONE}\n{TWO}"))

    def cached_tokens(key, text):
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        response = client.post("/v1/chat/completions", json=body, headers=bearer(key))
        return response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert [cached_tokens(key, secret) for key in (ONE, TWO)] == [0, 0]
    assert cached_tokens(ONE, secret) > len(secret)


def test_a_model_name_chooses_the_adapter(serving):
    client = serving()
    models = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert models == ["tiny", "a", "b", "c", "nan"]
    bodies = [WORK | {"model": model, "max_tokens": 12} for model in models[:4]]
    answers = [client.post("/v1/completions", json=body).json() for body in bodies]
    assert len({answer["choices"][0]["text"] for answer in answers}) == 4


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_public_address_requires_a_key_or_insecure(host, tmp_path):
    with pytest.raises(RequestError, match="give api_key_file, or insecure"):
        ListenConfig(host, 1)
    assert ListenConfig(host, 1, insecure=True).allowed_hosts is None
    assert ListenConfig(host, 1, keys=write_keys(tmp_path, ONE)).allowed_hosts is None


def test_foreign_host_header_is_403(serving):
    """DNS rebinding: a foreign page whose domain resolves to this machine is same-origin for the browser."""
    client = serving()
    for host in ("evil.example", "evil.example:8080", "", "[", "127.0.0.1.evil.example"):
        assert refused(client.get("/v1/models", headers={"Host": host}), 403)
    for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_cors_allows_configured_origins_what_openais_client_asks_for(serving, tmp_path):
    """It sends headers of its own, and some browsers ask before a page reaches a private network."""
    header, names = "access-control-allow-origin", "authorization,content-type,x-stainless-lang"
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": names,
        "Access-Control-Request-Private-Network": "true",
    }
    keys = write_keys(tmp_path, ONE)
    closed, allowing = serving(), serving(origins=["https://app.example"], keys=keys)
    assert header not in closed.options("/v1/chat/completions", headers=asked).headers
    foreign = asked | {"Origin": "https://evil.example"}
    assert header not in allowing.options("/v1/chat/completions", headers=foreign).headers
    unauthorized = allowing.get("/v1/models", headers=asked)
    assert unauthorized.headers[header] == asked["Origin"], "the page can read errors too"
    found = allowing.options("/v1/chat/completions", headers=asked).headers
    private, allowed = (found[f"access-control-allow-{name}"] for name in ("private-network", "headers"))
    assert (found[header], private, allowed) == (asked["Origin"], "true", names)


def test_the_document_has_all_limits_with_their_defaults():
    (block,) = re.findall(r"```toml\n(queue.*?)```", (ROOT / "docs/serving.md").read_text("utf-8"), re.DOTALL)
    assert tomllib.loads(block) == RequestLimits().model_dump()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ques = 1", "ques is not one of queue, body_bytes, .*"),
        ("answers = 65", "answers must be less than or equal to 64, not 65"),
        ("idle_s = '30'", "idle_s must be a valid integer, not '30'"),
        ("queue 1", "not TOML: .*"),
        (f"queue = {'9' * 5000}", "not TOML: .*"),
        (" " * 2_000_000, "more than 1,048,576 bytes, the limit"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_wrong_limit_is_named_with_the_file(text, problem, tmp_path):
    (path := tmp_path / "limits.toml").write_text(text)
    with pytest.raises(ThirteenError, match=f"^{re.escape(str(path))}: {problem}$"):
        RequestLimits.from_file(path)
    path.write_text("queue = 0")
    assert RequestLimits.from_file(path) == RequestLimits(queue=0)
