"""The clients of docs/serving.md on `thirteen serve`: the newest version of each, in its own environment.

python lab/client_table.py MODEL.gguf [--folder FOLDER] [--only NAMES] [--keep]

The model must take tools. Each client asks, streams, calls a tool and answers to a schema; the last columns
are what else it offers. A table in Markdown is printed: what came, or that it failed, with the reasons below.
Environments are installed once and brought up to date, unless --keep is given.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import httpx
from thirteen.files.cache_folder import cache_dir

HERE = Path(__file__).parent
PROBED = ("chat", "stream", "tools", "schema")
OFFLINE = {
    "DO_NOT_TRACK": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "AGNO_TELEMETRY": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
}
# The answer to a probe's question, where it has none of its own: the capital, or the tool's city.
EXPECTED = {"tools": "Oslo", "agent": "Oslo", "chat": "Paris", "stream": "Paris"}


@dataclass(frozen=True)
class Client:
    """A client.

    Attributes:
        name: as in the table; its version is that of the first package.
        probe: name in client_probes.py or client_probes.mjs.
        packages: what is installed, in a folder that clients of the same packages share.
        node: whether it is for JavaScript.
    """

    name: str
    probe: str
    packages: tuple[str, ...]
    node: bool = False

    @property
    def folder(self) -> str:
        """Name of its environment."""
        return re.sub(r"\W+", "-", f"{'node-' if self.node else ''}{self.packages[0]}").strip("-")


_AI, _LANGCHAIN = (
    ("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible"),
    ("@langchain/openai", "@langchain/core"),
)
CLIENTS = (
    Client("openai", "openai", ("openai",)),
    Client("ollama", "ollama", ("ollama",)),
    Client("langchain-openai", "langchain_openai", ("langchain-openai", "langchain")),
    Client("langchain-ollama", "langchain_ollama", ("langchain-ollama",)),
    Client("llama-index-llms-openai-like", "llama_index_openai", ("llama-index-llms-openai-like",)),
    Client("llama-index-llms-ollama", "llama_index_ollama", ("llama-index-llms-ollama",)),
    Client("litellm", "litellm_openai", ("litellm[proxy]",)),
    Client("litellm, ollama_chat/", "litellm_ollama", ("litellm[proxy]",)),
    Client("LiteLLM's proxy, openai/", "openai", ("litellm[proxy]",)),
    Client("LiteLLM's proxy, ollama_chat/", "openai", ("litellm[proxy]",)),
    Client("instructor", "instructor", ("instructor",)),
    Client("pydantic-ai-slim", "pydantic_ai", ("pydantic-ai-slim[openai]",)),
    Client("openai-agents", "openai_agents", ("openai-agents",)),
    Client("dspy", "dspy", ("dspy",)),
    Client("haystack-ai", "haystack_openai", ("haystack-ai",)),
    Client("ollama-haystack", "haystack_ollama", ("ollama-haystack",)),
    Client("smolagents", "smolagents", ("smolagents[openai]",)),
    Client("semantic-kernel", "semantic_kernel", ("semantic-kernel",)),
    Client("agno", "agno", ("agno", "openai")),
    Client("crewai", "crewai", ("crewai",)),
    Client("llm", "llm", ("llm",)),
    Client("openai (Node)", "openai", ("openai", "zod"), node=True),
    Client("ollama (Node)", "ollama", ("ollama", "zod"), node=True),
    Client("ai, @ai-sdk/openai (Node)", "ai_openai", (*_AI, "zod"), node=True),
    Client("ai, @ai-sdk/openai-compatible (Node)", "ai_compatible", (*_AI, "zod"), node=True),
    Client("@langchain/openai (Node)", "langchain_openai", (*_LANGCHAIN, "zod"), node=True),
    Client(
        "@langchain/ollama (Node)",
        "langchain_ollama",
        ("@langchain/ollama", "@langchain/core", "zod"),
        node=True,
    ),
    Client("@openai/agents (Node)", "agents", ("@openai/agents", "openai", "zod"), node=True),
)


def install(client: Client, place: Path, *, keep: bool) -> str:
    """Install the newest packages of a client; returns the version of the first."""
    package = re.sub(r"\[.*", "", client.packages[0])
    if client.node:
        place.mkdir(parents=True, exist_ok=True)
        modules = place / "node_modules"
        if not (keep and (modules / package).exists()):
            newest = [f"{name}@latest" for name in client.packages]
            run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *newest], place)
        return str(json.loads((modules / package / "package.json").read_text("utf-8"))["version"])
    python = place / "bin/python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(place)], place.parent)
        keep = False
    if not keep:
        run([str(python), "-m", "pip", "install", "-q", "--upgrade", *client.packages], place)
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return run([str(python), "-c", code], place).strip()


def run(command: Sequence[str], place: Path, timeout_s: float = 1200) -> str:
    """The output of a command."""
    environment = os.environ | OFFLINE | {"LLM_USER_PATH": str(place / "llm"), "HOME": str(place)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])}: {done.stderr.strip()[-500:]}")
    return done.stdout


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def running(command: Sequence[str], ready: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a server until the end of the block, from when its address answers."""
    with subprocess.Popen(command, env={**environment}, stdout=subprocess.DEVNULL) as process:
        try:
            end = monotonic() + 300
            while not _answers(ready):
                if process.poll() is not None or monotonic() > end:
                    raise RuntimeError(f"{' '.join(command[:4])}: does not answer")
                sleep(0.5)
            yield
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@contextmanager
def proxy(place: Path, url: str, model: str, provider: str) -> Iterator[str]:
    """LiteLLM's proxy before the server."""
    where = {"api_base": f"{url}/v1" if provider == "openai" else url, "api_key": "unused"}
    given = {"model": f"{provider}/{model}", **where}
    config, port = place / "proxy.yaml", free_port()
    config.write_text(json.dumps({"model_list": [{"model_name": model, "litellm_params": given}]}))
    code = "import sys; from litellm import run_server; sys.argv[0] = 'litellm'; run_server()"
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | OFFLINE
    address = f"http://127.0.0.1:{port}"
    with running(
        [str(place / "bin/python"), "-c", code, *options], f"{address}/health/liveliness", environment
    ):
        yield address


def probe(client: Client, place: Path, url: str, model: str) -> dict[str, str]:
    """What each probe of a client got: "" where it is right, else what is wrong."""
    if client.name.startswith("LiteLLM's proxy"):
        provider = client.name.split()[-1].strip("/")
        with proxy(place, url, model, provider) as address:
            found = _run_probes(client, place, address, model)
            found.pop("models", None)
            found.pop("completions", None)
    else:
        found = _run_probes(client, place, url, model)
    return {what: _problem(what, **one) for what, one in found.items()}


def _run_probes(client: Client, place: Path, url: str, model: str) -> dict[str, dict[str, str]]:
    if client.node:  # its modules are found from where the script is
        command = ["node", str(shutil.copy(HERE / "client_probes.mjs", place))]
    else:
        command = [str(place / "bin/python"), str(HERE / "client_probes.py")]
    printed = run([*command, client.probe, url, model], place, 600)
    found: dict[str, dict[str, str]] = json.loads(printed.strip().splitlines()[-1])
    return found


def _problem(what: str, got: str = "", error: str = "") -> str:
    if error:
        return error
    expected = EXPECTED.get(what, "")
    return "" if got and expected in got else f"got {got!r}, which has no {expected or 'text'}"


def main() -> None:
    """Install and probe the clients, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--folder", type=Path, default=cache_dir() / "clients")
    parser.add_argument("--only", default="", metavar="NAMES", help="names of probes, with commas")
    parser.add_argument("--keep", action="store_true", help="leave installed packages as they are")
    given = parser.parse_args()
    chosen = [one for one in CLIENTS if not given.only or one.probe in given.only.split(",")]
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port, problems = free_port(), list[str]()
    url, served = f"http://127.0.0.1:{port}", [sys.executable, "-m", "thirteen", "serve", str(given.model)]
    print(
        f"| client | version | {' | '.join(PROBED)} | other |", "| --- " * (3 + len(PROBED)) + "|", sep="\n"
    )
    with running([*served, "--port", str(port)], f"{url}/ready", os.environ):
        model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
        for client in chosen:
            place = folder / client.folder
            try:
                version = install(client, place, keep=given.keep)
                found = probe(client, place, url, model)
            except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
                problems.append(f"{client.name}: {error}")
                continue
            problems += [f"{client.name}: {what}: {problem}" for what, problem in found.items() if problem]
            cells = ["" if what not in found else "no" if found[what] else "yes" for what in PROBED]
            other = ", ".join(what for what, problem in found.items() if what not in PROBED and not problem)
            print(f"| {client.name} | {version} | {' | '.join(cells)} | {other} |", flush=True)
    print(*(f"{problem[:600]}" for problem in problems), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
