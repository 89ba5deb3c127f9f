"""Our files in loaders that nobody here wrote; `make interop` runs this. What they need is fetched once.

node-llama-cpp is the engine of many desktop apps, prebuilt by its authors; xllamacpp a wheel from PyPI; gguf
the reader of llama.cpp's own tools. Each has a build of llama.cpp of its own, newer or older than ours.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from thirteen.cache import cache_dir
from thirteen.convert.costs import costs_for
from thirteen.default import ADAPTER, default_model
from thirteen.gguf_file import read_header
from thirteen.models.fetch import embedded
from thirteen.runtime.engine import Engine
from thirteen.runtime.request import Request

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
NODE_LLAMA_CPP, XLLAMACPP = "node-llama-cpp@3.22.1", "xllamacpp==2026.10.11549"
COUNT = 32  # tokens of an answer
TEXTS = (
    *("Tom has 3 apples.", "½ of $1,250.50 is…\n\n\tso: 12\u00d713", "naïve façade — 東京 🙂"),
    "<|im_start|>user\nHi<|im_end|>\n",
)
QUESTIONS = tuple(
    f"{name} has {a} {things} and buys {b} more. How many {things} does {name} have?"
    for name, things in (("Tom", "apples"), ("Ann", "pens"), ("Sara", "books"), ("Bob", "coins"))
    for a, b in ((3, 4), (12, 5), (20, 17), (7, 7), (41, 9))
)
KL_MAX = 2e-3  # nats: two builds with other kernels differ by some 1e-4
ALIKE = 0.9  # of the answers; a near tie may fall the other way in another build

Task = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A file, and an adapter beside it or none."""

    model: Path
    adapter: Path | None = None


def _ran(command: list[str], task: Task, cwd: Path) -> dict[str, Any]:
    done = subprocess.run(
        command, input=json.dumps(task), capture_output=True, text=True, check=False, cwd=cwd, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout[done.stdout.index("{") :]))


@pytest.fixture(scope="session")
def folder() -> Path:
    place = cache_dir() / "interop"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def node(folder: Path) -> Callable[[Task], dict[str, Any]]:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here")
    if not (folder / "node_modules/node-llama-cpp/package.json").exists():
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", NODE_LLAMA_CPP]
        if subprocess.run(install, cwd=folder, check=False).returncode:
            pytest.skip(f"npm could not fetch {NODE_LLAMA_CPP}")
    script = folder / "node_llama_cpp.mjs"
    shutil.copy(HERE / script.name, script)
    return lambda task: _ran(["node", str(script)], task, folder)


@pytest.fixture(scope="session")
def xllamacpp(folder: Path) -> Callable[[Task], dict[str, Any]]:
    python = folder / "xllamacpp/bin/python"
    if not (folder / "xllamacpp/bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "xllamacpp")], check=True)
    if subprocess.run([str(python), "-m", "pip", "install", "-q", XLLAMACPP], check=False).returncode:
        pytest.skip(f"pip could not fetch {XLLAMACPP}")
    return lambda task: _ran([str(python), str(HERE / "with_xllamacpp.py")], task, folder)


@pytest.fixture(scope="session", params=["node-llama-cpp", "xllamacpp"])
def loader(request: pytest.FixtureRequest) -> Callable[[Task], dict[str, Any]]:
    name = {"node-llama-cpp": "node", "xllamacpp": "xllamacpp"}[request.param]
    return request.getfixturevalue(name)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "lora.gguf"
    export = ["adapter", "export", ADAPTER, "--base", str(embedded()), "--output", str(path)]
    subprocess.run([sys.executable, "-m", "thirteen", *export], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session", params=["merged", "base and adapter"])
def case(request: pytest.FixtureRequest, lora: Path) -> Case:
    return Case(default_model()) if request.param == "merged" else Case(embedded(), lora)


@dataclass
class Ours:
    """What this engine makes of a case."""

    prompts: list[list[int]]
    tokens: list[list[int]]
    answers: list[list[int]]
    distributions: list[NDArray[np.float64]]  # log-probabilities, (vocabulary,)


def ours(case: Case, questions: tuple[str, ...], count: int, distributions: int) -> Ours:
    with Engine(case.model, adapter=case.adapter, threads=2, slots=1, prefix_bytes=0) as engine:
        prompts = [list(engine.request(question).tokens) for question in questions]
        handles = [engine.submit(Request(tuple(prompt), count), wait=True) for prompt in prompts]
        answers = [[token for piece in handle for token in piece.tokens] for handle in handles]
        rows = [engine.logits(prompt)[-1] for prompt in prompts[:distributions]]
        tokens = [engine.model.tokenize(text, special=True, bos=False) for text in TEXTS]
    return Ours(prompts, tokens, answers, [_log_softmax(row) for row in rows])


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def task(case: Case, found: Ours, count: int, distributions: int) -> Task:
    adapter = str(case.adapter) if case.adapter else None
    return {
        "model": str(case.model),
        "adapter": adapter,
        "texts": list(TEXTS),
        "prompts": found.prompts,
        "count": count,
        "distributions": distributions,
    }


def test_tokens_answers_and_probabilities_are_ours(
    loader: Callable[[Task], dict[str, Any]], case: Case
) -> None:
    found = ours(case, QUESTIONS, COUNT, 4)
    theirs = loader(task(case, found, COUNT, 4))
    assert theirs["tokens"] == found.tokens
    alike = [one == other[: len(one)] for one, other in zip(found.answers, theirs["answers"], strict=True)]
    divergences = [
        _divergence(one, np.array(other))
        for one, other in zip(found.distributions, theirs["distributions"], strict=True)
    ]
    print(f"{sum(alike)} of {len(alike)} answers alike, KL at most {max(divergences):.2e}")
    assert max(divergences) < KL_MAX
    assert sum(alike) >= ALIKE * len(alike)


def _divergence(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """KL divergence in nats, of their logits from our log-probabilities."""
    assert theirs.shape == ours.shape
    return float((np.exp(ours) * (ours - _log_softmax(theirs))).sum())


@pytest.fixture(scope="session")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """typed(name): the embedded model in a type, as far as its rows allow."""
    folder = tmp_path_factory.mktemp("types")

    def write(name: str) -> Path:
        path = folder / f"{name}.gguf"
        convert = ["convert", "embedded", "--type", name, "--output", str(path)]
        subprocess.run([sys.executable, "-m", "thirteen", *convert], check=True, capture_output=True)
        return path

    yield write


@pytest.mark.parametrize("name", sorted(costs_for("x86").layer | costs_for("arm").layer))
def test_every_type_of_a_plan_loads_and_answers_alike(
    name: str,
    typed: Callable[[str], Path],
    node: Callable[[Task], dict[str, Any]],
    xllamacpp: Callable[[Task], dict[str, Any]],
) -> None:
    case = Case(typed(name))
    found = ours(case, QUESTIONS[:2], 8, 1)
    for loader in (node, xllamacpp):
        theirs = loader(task(case, found, 8, 1))
        assert _divergence(found.distributions[0], np.array(theirs["distributions"][0])) < KL_MAX
        assert [answer[0] for answer in theirs["answers"]] == [answer[0] for answer in found.answers]
    case.model.unlink()


def test_the_reader_of_llama_cpps_tools_finds_what_we_wrote(case: Case) -> None:
    for path in filter(None, (case.model, case.adapter)):
        theirs, own = gguf.GGUFReader(path), read_header(path)
        assert {tensor.name: (tensor.tensor_type, tensor.n_bytes) for tensor in theirs.tensors} == {
            name: (tensor.type, tensor.nbytes) for name, tensor in own.tensors.items()
        }
        assert own.fields.keys() <= theirs.fields.keys()
