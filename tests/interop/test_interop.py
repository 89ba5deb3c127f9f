"""Our files in other loaders (`make interop`), which are downloaded once.

node-llama-cpp is the engine of many desktop apps, prebuilt by its authors. xllamacpp is a wheel from PyPI.
gguf is the reader of llama.cpp's own tools. Each has its own build of llama.cpp, newer or older than ours.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from thirteen.convert.pipeline import convert
from thirteen.convert.quantize.costs import costs_for
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList
from thirteen.files.cache_folder import cache_dir
from thirteen.files.gguf.header import read_header
from thirteen.models.embedded import embedded
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.logits import log_softmax
from thirteen.runtime.llama.model import LoraAdapter, Model
from thirteen.workflows.default_model import ADAPTER, default_model

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
Loader = Callable[[Task], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A model file, with or without a run-time adapter."""

    model: Path
    adapter: Path | None = None


def _run(command: list[str], task: Task, cwd: Path) -> dict[str, Any]:
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
def node(folder: Path) -> Loader:
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
def xllamacpp(folder: Path) -> Loader:
    python = folder / "xllamacpp/bin/python"
    if not (folder / "xllamacpp/bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "xllamacpp")], check=True)
    if subprocess.run([str(python), "-m", "pip", "install", "-q", XLLAMACPP], check=False).returncode:
        pytest.skip(f"pip could not install {XLLAMACPP}")
    return lambda task: _run([str(python), str(HERE / "with_xllamacpp.py")], task, folder)


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "lora.gguf"
    export = ["adapter", "export", ADAPTER, "--base", str(embedded()), "--output", str(path)]
    subprocess.run([sys.executable, "-m", "thirteen", *export], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with the tokens that TEXTS use, and two thirds of the others."""
    path, base = tmp_path_factory.mktemp("trimmed") / "trimmed.gguf", open_checkpoint(embedded())
    tables = TokenizerTables.from_fields(base.tokenizer, str(embedded()))
    with Engine(embedded(), slots=1, context=1024) as engine:
        used = {i for text in TEXTS for i in engine.model.tokenize(text, special=True, bos=False)}
    wanted = used | tables.required_ids | set(range(len(tables.tokens) * 2 // 3))
    wanted |= tables.missing_parts(wanted).keys()
    kept = VocabularyList(tuple(sorted(wanted)), len(tables.tokens), tables.sha256)
    convert(embedded(), path, quantization="same", vocabulary=kept)
    return path


@pytest.fixture(scope="session", params=["merged", "base and adapter", "trimmed"])
def case(request: pytest.FixtureRequest, lora: Path, trimmed: Path) -> Case:
    cases = {
        "merged": Case(default_model()),
        "base and adapter": Case(embedded(), lora),
        "trimmed": Case(trimmed, lora),
    }
    return cases[request.param]


@dataclass
class EngineOutput:
    """Output of this engine for a case."""

    prompts: list[list[int]]
    tokens: list[list[int]]
    answers: list[list[int]]
    distributions: list[NDArray[np.float64]]  # log-probabilities, (vocabulary,)


def ours(case: Case, questions: tuple[str, ...], count: int, distributions: int) -> EngineOutput:
    with Engine(case.model, adapter=case.adapter, threads=2, slots=1, prefix_bytes=0) as engine:
        requests = [engine.request(question, calculator=False, max_tokens=count) for question in questions]
        handles = [engine.submit(request, wait=True) for request in requests]
        answers = [[token for piece in handle for token in piece.tokens] for handle in handles]
        tokens = [engine.model.tokenize(text, special=True, bos=False) for text in TEXTS]
    prompts = [list(request.tokens) for request in requests]
    return EngineOutput(prompts, tokens, answers, _distributions(case, prompts[:distributions]))


def _distributions(case: Case, prompts: list[list[int]]) -> list[NDArray[np.float64]]:
    params = ContextParams(context=1024, slots=1, batch=1024, threads=2, outputs=1)
    found = []
    with ExitStack() as stack:
        model = stack.enter_context(Model(case.model))
        adapter = stack.enter_context(LoraAdapter(model, case.adapter)) if case.adapter else None
        context = stack.enter_context(Context(model, params, adapter))
        for prompt in prompts:
            (row,) = context.decode([Span(0, 0, tuple(prompt), 1)])
            found.append(log_softmax(context.logits_row(row), np.float64))
            context.clear(0)
    return found


def task(case: Case, found: EngineOutput, count: int, distributions: int) -> Task:
    adapter = str(case.adapter) if case.adapter else None
    return {
        "model": str(case.model),
        "adapter": adapter,
        "texts": list(TEXTS),
        "prompts": found.prompts,
        "count": count,
        "distributions": distributions,
    }


def test_tokens_answers_and_probabilities_are_ours(case: Case, node: Loader, xllamacpp: Loader) -> None:
    found = ours(case, QUESTIONS, COUNT, DISTRIBUTIONS)
    one, other = (loader(task(case, found, COUNT, DISTRIBUTIONS)) for loader in (node, xllamacpp))
    kl_theirs = _divergence(one["distributions"], other["distributions"])
    equal_theirs = _count_equal(one["answers"], other["answers"])
    print(f"node-llama-cpp, xllamacpp: {equal_theirs} of {len(QUESTIONS)} answers equal, KL {kl_theirs:.2e}")
    for name, theirs in (("node-llama-cpp", one), ("xllamacpp", other)):
        assert theirs["tokens"] == found.tokens
        equal = _count_equal(found.answers, theirs["answers"])
        kl = _divergence(found.distributions, theirs["distributions"])
        print(f"ours and {name}: {equal} of {len(QUESTIONS)} answers equal, KL {kl:.2e}")
        assert equal >= equal_theirs - FEWER_EQUAL
        assert kl <= KL_FACTOR * max(kl_theirs, KL_FLOOR)


def _count_equal(ours: list[list[int]], theirs: list[list[int]]) -> int:
    """Number of equal answers, compared up to the shorter one: some loaders report the end token."""
    return sum(one[: len(two)] == two[: len(one)] for one, two in zip(ours, theirs, strict=True))


def _divergence(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The mean KL divergence of the pairs, in nats, each given as logits or log-probabilities."""
    pairs = [
        (log_softmax(np.array(p), np.float64), log_softmax(np.array(q), np.float64))
        for p, q in zip(ours, theirs, strict=True)
    ]
    return fmean(float((np.exp(p) * (p - q)).sum()) for p, q in pairs)


@pytest.fixture(scope="session")
def importance(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """importance(): an importance matrix of the embedded model on a short text, measured on first use."""
    folder = tmp_path_factory.mktemp("importance")
    path, texts = folder / "importance.gguf", folder / "texts.jsonl"

    def measured() -> Path:
        if not path.exists():
            texts.write_text(json.dumps({"text": (HERE.parents[1] / "README.md").read_text()[:1500]}) + "\n")
            measure = ["importance", "embedded", "--calibration", str(texts), "--output", str(path)]
            subprocess.run([sys.executable, "-m", "thirteen", *measure], check=True, capture_output=True)
        return path

    return measured


@pytest.fixture(scope="session")
def typed(
    tmp_path_factory: pytest.TempPathFactory, importance: Callable[[], Path]
) -> Iterator[Callable[[str], Path]]:
    """typed(name): the embedded model in a type, where its rows allow it."""
    folder = tmp_path_factory.mktemp("types")

    def write(name: str) -> Path:
        path = folder / f"{name}.gguf"
        given = ["--importance", str(importance())] if name in {"IQ2_S", "IQ3_XXS"} else []
        convert = ["convert", "embedded", "--type", name, *given, "--output", str(path)]
        subprocess.run([sys.executable, "-m", "thirteen", *convert], check=True, capture_output=True)
        return path

    yield write


@pytest.mark.parametrize("name", sorted(costs_for("x86").layer | costs_for("arm").layer))
def test_every_type_of_a_plan_loads_and_answers_count_equal(
    name: str, typed: Callable[[str], Path], node: Loader, xllamacpp: Loader
) -> None:
    case = Case(typed(name))
    found = ours(case, QUESTIONS[:2], 8, 2)
    one, other = (loader(task(case, found, 8, 2)) for loader in (node, xllamacpp))
    kl_theirs = _divergence(one["distributions"], other["distributions"])
    kls = [_divergence(found.distributions, theirs["distributions"]) for theirs in (one, other)]
    print(f"{name}: KL of theirs {kl_theirs:.2e}, ours from theirs {kls[0]:.2e}, {kls[1]:.2e}")
    assert max(kls) <= KL_FACTOR * max(kl_theirs, KL_FLOOR)
    case.model.unlink()


def test_the_reader_of_llama_cpps_tools_finds_what_we_wrote(case: Case) -> None:
    for path in filter(None, (case.model, case.adapter)):
        theirs, own = gguf.GGUFReader(path), read_header(path)
        assert {tensor.name: (tensor.tensor_type, tensor.n_bytes) for tensor in theirs.tensors} == {
            name: (tensor.type, tensor.nbytes) for name, tensor in own.tensors.items()
        }
        assert own.fields.keys() <= theirs.fields.keys()
