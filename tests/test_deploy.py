"""The container image and the systemd unit keep their promises, as far as can be checked without either."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import suppress
from getpass import getuser
from pathlib import Path
from time import monotonic

import httpx
import pytest
from thirteen.server.config import RequestLimits

from .background_server import free_port
from .runtime.conftest import write_gguf
from .server.serving import open_engine, serve_engine
from .test_docs import parse_command

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "deploy" / "thirteen.service"
TEMPORARY = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")  # nginx's folders


def stages() -> list[str]:
    """The text of each stage of the Dockerfile."""
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", "")
    return re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]


def instructions(stage: str, name: str) -> list[str]:
    """What stands after each instruction of this name."""
    return re.findall(rf"^{name} +(.*)$", stage, re.MULTILINE)


def shipped(name: str) -> str:
    """The only instruction of this name in the image that is shipped."""
    (words,) = instructions(stages()[-1], name)
    return words


def test_the_shipped_image_has_no_compiler_and_no_root():
    build, image = stages()
    commands = " ".join(instructions(image, "RUN"))
    assert "g++" in build and re.findall(r"--no-install-recommends (.*?) +&&", commands) == ["libgomp1"]
    assert "--no-index" in commands and not instructions(image, "COPY")
    user, group = map(int, shipped("USER").split(":"))
    assert user > 0 and group > 0
    assert f"--owner={user} --group={group} --mode=0700 /cache" in commands
    assert "THIRTEEN_CACHE=/cache" in shipped("ENV").split()


def test_the_wheels_are_those_of_the_lock_file_and_the_build_context_has_them():
    build, _ = stages()
    assert "--require-hashes --requirement requirements.lock" in build
    copied = [source for words in instructions(build, "COPY") for source in words.split()[:-1]]
    assert copied and all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    assert not {"README.md", "LICENSE", "pyproject.toml", "models", "web"} & set(ignored)


def test_both_serve_with_keys_where_other_machines_can_connect():
    image = parse_command(json.loads(shipped("CMD")))
    assert (image["host"], image["api_key_file"]) == ("0.0.0.0", Path("/run/secrets/api-keys"))
    # a mount, not part of the image
    assert image["model"].startswith("/models/")
    assert json.loads(shipped("ENTRYPOINT")) == ["thirteen"]
    unit = ConfigParser(interpolation=None, strict=False)
    unit.read(UNIT)
    service = parse_command(shlex.split(unit["Service"]["ExecStart"])[1:])
    assert (service["host"], service["api_key_file"]) == ("127.0.0.1", Path("%d/api-keys"))
    assert unit.getint("Service", "TimeoutStopSec") > RequestLimits().drain_s


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path):
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/thirteen/bin/thirteen", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", copy]
    rated = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert rated.returncode == 0, rated.stdout.splitlines()[-1]  # the threshold is in tenths


READ_ONLY = """
set -e
mount --make-rprivate /
for place in $(awk '{print $2}' /proc/self/mounts | grep -vE '^/(proc|sys|dev)(/|$)'); do
  mount -o remount,bind,ro "$place"
done
if touch /tmp/thirteen 2>/dev/null; then exit 3; fi
exec "$@"
"""
UNSHARE = ("unshare", "--mount", "sh", "-c", READ_ONLY, "sh")


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_it_serves_where_no_file_can_be_made_and_the_health_check_sees_it(tmp_path):
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    model, keys = write_gguf(tmp_path / "model.gguf", {}, {}), tmp_path / "keys"
    keys.write_text("a-secret-of-twenty-characters\n")
    keys.chmod(0o600)
    words = ["serve", model, "--host", "0.0.0.0", "--port", "0", "--api-key-file", keys, "--threads", "1"]
    command = [*UNSHARE, sys.executable, "-m", "thirteen", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            found = (re.search(r"serving .* at http://0\.0\.0\.0:(\d+)", line) for line in running.stderr)
            port = int(next(filter(None, found))[1])
            assert healthy(port)
            asked = {"question": "What is 12 * 13?", "max_tokens": 8}
            headers = {"Authorization": "Bearer a-secret-of-twenty-characters"}
            url = f"http://127.0.0.1:{port}/v1/answer"
            response = httpx.post(url, json=asked, headers=headers, timeout=60)
            assert response.status_code == 200 and response.json()["text"], response.text
        finally:
            running.terminate()
            running.communicate(timeout=60)
    assert running.returncode == 0
    assert not healthy(port)


def healthy(port: int) -> bool:
    """What the health check of the image finds, at this port."""
    words = json.loads(shipped("HEALTHCHECK").partition("CMD ")[2])
    assert words[:2] == ["python", "-c"] and "8080" in words[2] and "'/health'" in words[2]
    code = words[2].replace("8080", str(port))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[int]:
    """Port of nginx in front of a server, with the settings of the file but for TLS and shorter times."""
    model = write_gguf(tmp_path / "model.gguf", {}, {})
    with open_engine(model, context=256) as engine, serve_engine(engine) as server:
        port = free_port()
        settings = (ROOT / "deploy" / "nginx.conf").read_text()
        for pattern, text in (
            (r"listen 443 ssl;", f"listen 127.0.0.1:{port};"),
            (r"ssl_certificate.*;", ""),
            (r"127\.0\.0\.1:8080", server.url.removeprefix("http://")),
            (r"(client_header_timeout|client_body_timeout) 10s", r"\1 1s"),
            (r"http {", "http {\n" + "".join(f"{kind}_temp_path {tmp_path};\n" for kind in TEMPORARY)),
        ):
            settings, count = re.subn(pattern, text, settings)
            assert count, pattern
        (tmp_path / "nginx.conf").write_text(settings)
        options = f"daemon off; user {getuser()}; pid {tmp_path}/pid;"
        words = ["-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr", "-g", options]
        with subprocess.Popen(["nginx", *words]) as nginx:
            try:
                with httpx.Client(transport=httpx.HTTPTransport(retries=6)) as client:  # until nginx listens
                    client.get(f"http://127.0.0.1:{port}/health")
                yield port
            finally:
                nginx.terminate()


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_the_proxy_ends_slow_clients_streams_at_once_and_hides_the_metrics(proxied: int) -> None:
    url = f"http://127.0.0.1:{proxied}"
    body = {"prompt": "a", "max_tokens": 200, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
        arrivals = [monotonic() for _ in response.iter_raw()]
    assert response.status_code == 200 and len(arrivals) > 10, "the proxy kept the stream back"
    assert httpx.get(f"{url}/metrics").status_code == 403
    refused = httpx.post(
        f"{url}/v1/answer", content=b" " * 2_000_000, headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 413 and refused.json()["error"]["code"] == "request_too_large"
    for sent in (b"POST /v1/answer HT", b"POST /v1/answer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"):
        with socket.create_connection(("127.0.0.1", proxied), timeout=30) as slow:
            slow.sendall(sent)
            with suppress(ConnectionError):
                assert not slow.recv(10_000).startswith(b"HTTP/1.1 2")
