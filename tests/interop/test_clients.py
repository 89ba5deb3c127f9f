"""Clients that are no package of this environment, on the server: downloaded once (`make interop`)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import jsonschema
import openai
import pytest
from thirteen.files.cache_folder import cache_dir
from thirteen.models.embedded import embedded

from ..server.serving import FLAG, open_engine, serve_engine
from ..waiting import wait_until

pytestmark = pytest.mark.interop

OLLAMA_JS, LITELLM = "ollama@0.6.4", "litellm[proxy]>=1.110"
PROXY = "import sys; from litellm import run_server; sys.argv[0] = 'litellm'; run_server()"


@pytest.fixture(scope="module")
def server():
    with open_engine(embedded()) as engine, serve_engine(engine, name="smollm2") as server:
        yield server


@pytest.fixture(scope="module")
def folder():
    place = cache_dir() / "interop" / "clients"
    place.mkdir(parents=True, exist_ok=True)
    return place


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_ollama_js(server, folder):
    if not (npm := shutil.which("npm")):
        pytest.skip("npm is not installed")
    if not (folder / "node_modules/ollama").exists():
        run(npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", OLLAMA_JS, cwd=folder)
    script = shutil.copy(Path(__file__).with_name("ollama.mjs"), folder)
    got = json.loads(run("node", script, server.url, json.dumps(FLAG), cwd=folder))
    jsonschema.validate(json.loads(got["chat"]), FLAG)
    assert got["streamed"] == got["chat"] == got["generated"] and got["text"]


@pytest.fixture(scope="module")
def proxy(server, folder):
    """LiteLLM's proxy in front of the server, by both of its APIs."""
    python = Path(os.environ.get("LITELLM_PYTHON", folder / "litellm/bin/python"))
    if not python.exists():
        run(sys.executable, "-m", "venv", folder / "litellm", cwd=folder)
        run(python, "-m", "pip", "install", "-q", LITELLM, cwd=folder)
    config, port = folder / "proxy.yaml", server.port + 1
    models = {
        "openai": {"model": "openai/smollm2", "api_base": f"{server.url}/v1", "api_key": "unused"},
        "ollama": {"model": "ollama_chat/smollm2", "api_base": server.url},
    }
    listed = [{"model_name": name, "litellm_params": given} for name, given in models.items()]
    config.write_text(json.dumps({"model_list": listed}))  # which is YAML too
    command = [python, "-c", PROXY, "--config", config, "--host", "127.0.0.1", "--port", port]
    environment = os.environ | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    with subprocess.Popen(list(map(str, command)), env=environment, cwd=folder) as process:
        try:
            wait_until(lambda: _is_alive(f"http://127.0.0.1:{port}"), 180, 0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/liveliness").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("model", ["openai", "ollama"])
def test_litellms_proxy(model, proxy):
    schema = {"type": "json_schema", "json_schema": {"name": "flag", "schema": FLAG, "strict": True}}
    asked = {"model": model, "messages": [{"role": "user", "content": "Name a colour."}], "temperature": 0}
    with openai.OpenAI(base_url=proxy, api_key="unused") as client:
        create = client.chat.completions.create
        text = create(**asked, max_tokens=12).choices[0].message.content
        chunks = create(**asked, max_tokens=12, stream=True)
        assert text == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        flag = create(**asked, max_tokens=60, response_format=schema).choices[0].message.content
    jsonschema.validate(json.loads(flag), FLAG)
