"""Our files in other loaders (`make interop`), which are downloaded once.

node-llama-cpp is the engine of many desktop apps, prebuilt by its authors. xllamacpp is a wheel from PyPI.
gguf is the reader of llama.cpp's own tools. Each has its own build of llama.cpp, newer or older than ours.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import gguf
import numpy as np
import pytest
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Same
from thirteen.files.cache_folder import cache_dir
from thirteen.files.gguf.header import read_header
from thirteen.models.embedded import ADAPTER, default_model, embedded
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import log_softmax

from ..convert.vocabulary.kept_lists import closed_list, tables_of

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
NODE_LLAMA_CPP, XLLAMACPP = "node-llama-cpp@3.22.1", "xllamacpp==2026.10.11549"
COUNT = 32  # tokens of an answer
DISTRIBUTIONS = 16  # prompts whose next token's distribution is compared: that of one varies tenfold
TEXTS = (
    *("Tom has 3 apples.", "½ of $1,250.50 is…\n\n\tso: 12\u00d713", "naïve façade — 東京 🙂"),
    "<|im_start|>user\nHi<|im_end|>\n",
)
QUESTIONS = tuple(
    f"{name} has {a} {things} and buys {b} more. How many {things} does {name} have?"
    for name, things in (("Tom", "apples"), ("Ann", "pens"), ("Sara", "books"), ("Bob", "coins"))
    for a, b in ((3, 4), (12, 5), (20, 17), (7, 7), (41, 9))
)
# Builds with different kernels differ. The difference of the two others is the scale for ours from theirs.
KL_FACTOR = 3.0
KL_FLOOR = 2e-3  # nats, where the two others happen to agree
FEWER_EQUAL = 5  # of 20 answers: near ties of a small model

Task = dict[str, Any]
Results = dict[str, Any]  # tokens, answers, and distributions as logits or log-probabilities


def _run(command: list[str], task: Task, cwd: Path) -> dict[str, Any]:
    done = subprocess.run(
        command, input=json.dumps(task), capture_output=True, text=True, check=False, cwd=cwd, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout[done.stdout.index("{") :]))


@pytest.fixture(scope="session")
def folder():
    place = cache_dir() / "interop"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def node(folder):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    if not (folder / "node_modules/node-llama-cpp/package.json").exists():
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", NODE_LLAMA_CPP]
        if subprocess.run(install, cwd=folder, check=False).returncode:
            pytest.skip(f"npm could not install {NODE_LLAMA_CPP}")
    script = folder / "node_llama_cpp.mjs"
    shutil.copy(HERE / script.name, script)
    return lambda task: _run(["node", str(script)], task, folder)


@pytest.fixture(scope="session")
def xllamacpp(folder):
    python = folder / "xllamacpp/bin/python"
    if not (folder / "xllamacpp/bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "xllamacpp")], check=True)
    if subprocess.run([str(python), "-m", "pip", "install", "-q", XLLAMACPP], check=False).returncode:
        pytest.skip(f"pip could not install {XLLAMACPP}")
    return lambda task: _run([str(python), str(HERE / "with_xllamacpp.py")], task, folder)


@pytest.fixture(scope="session")
def lora(tmp_path_factory):
    path = tmp_path_factory.mktemp("lora") / "lora.gguf"
    command = [sys.executable, "-m", "thirteen", "adapter", ADAPTER, "--base", str(embedded())]
    subprocess.run([*command, "--output", str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def trimmed(tmp_path_factory):
    """The embedded model with the tokens that TEXTS use, and two thirds of the others."""
    path, tables = tmp_path_factory.mktemp("trimmed") / "trimmed.gguf", tables_of(embedded())
    with Engine(embedded(), slots=1, context=1024) as engine:
        used = {i for text in TEXTS for i in engine.model.tokenize(text, special=True, bos=False)}
    kept = closed_list(tables, used | set(range(len(tables.tokens) * 2 // 3)))
    convert(Recipe(embedded(), path, Same(), vocabulary=kept))
    return path


@pytest.fixture(scope="session", params=["merged", "base and adapter", "trimmed"])
def case(request, lora, trimmed):
    """A model file, and a run-time adapter or None."""
    cases = {"merged": (default_model(), None), "base and adapter": (embedded(), lora)}
    return (cases | {"trimmed": (trimmed, lora)})[request.param]


def ours(model: Path, adapter: Path | None) -> tuple[Task, Results]:
    """The task of the loaders, and what this engine finds."""
    with Engine(model, adapter=adapter, threads=2, slots=1, prefix_bytes=0) as engine:
        requests = [engine.request(question, calculator=False, max_tokens=COUNT) for question in QUESTIONS]
        handles = [engine.submit(request, wait=True) for request in requests]
        prompts = [list(request.tokens) for request in requests]
        results = {
            "tokens": [engine.model.tokenize(text, special=True, bos=False) for text in TEXTS],
            "answers": [[token for piece in handle for token in piece.tokens] for handle in handles],
            "distributions": [engine.logits(prompt)[-1] for prompt in prompts[:DISTRIBUTIONS]],
        }
    task = {
        "model": str(model),
        "adapter": adapter and str(adapter),
        "texts": list(TEXTS),
        "prompts": prompts,
        "count": COUNT,
        "distributions": DISTRIBUTIONS,
    }
    return task, results


def test_tokens_answers_and_probabilities_are_ours(case, node, xllamacpp):
    task, found = ours(*case)
    one, other = node(task), xllamacpp(task)
    kl_theirs = _divergence(one["distributions"], other["distributions"])
    equal_theirs = _count_equal(one["answers"], other["answers"])
    print(f"node-llama-cpp, xllamacpp: {equal_theirs} of {len(QUESTIONS)} answers equal, KL {kl_theirs:.2e}")
    for name, theirs in (("node-llama-cpp", one), ("xllamacpp", other)):
        assert theirs["tokens"] == found["tokens"]
        equal = _count_equal(found["answers"], theirs["answers"])
        kl = _divergence(found["distributions"], theirs["distributions"])
        print(f"ours and {name}: {equal} of {len(QUESTIONS)} answers equal, KL {kl:.2e}")
        assert equal >= equal_theirs - FEWER_EQUAL
        assert kl <= KL_FACTOR * max(kl_theirs, KL_FLOOR)


def _count_equal(ours: list[list[int]], theirs: list[list[int]]) -> int:
    """Number of equal answers, compared up to the shorter one: some loaders report the end token."""
    return sum(one[: len(two)] == two[: len(one)] for one, two in zip(ours, theirs, strict=True))


def _divergence(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The mean KL divergence of the pairs, in nats, each given as logits or log-probabilities."""
    pairs = [(log_softmax(np.array(p)), log_softmax(np.array(q))) for p, q in zip(ours, theirs, strict=True)]
    return fmean(float((np.exp(p) * (p - q)).sum()) for p, q in pairs)


def test_the_reader_of_llama_cpps_tools_finds_what_we_wrote(case):
    for path in filter(None, case):
        theirs, own = gguf.GGUFReader(path), read_header(path)
        assert {tensor.name: (tensor.tensor_type, tensor.n_bytes) for tensor in theirs.tensors} == {
            name: (tensor.type, tensor.nbytes) for name, tensor in own.tensors.items()
        }
        assert own.fields.keys() <= theirs.fields.keys()
