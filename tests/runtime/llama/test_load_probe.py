"""Trial loads: a file that ends its process is one line here, and a file that passes is not tried again."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from thirteen.cluster.deploy import ClusterOptions, Deployment, deploy
from thirteen.cluster.ray_batch import RayWorkers
from thirteen.cluster.replica import ReplicaConfig
from thirteen.convert.pipeline import convert
from thirteen.errors import FileError
from thirteen.files import trusted_files
from thirteen.runtime.batch.reproducible_batches import BatchJob, GenerationSettings
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import load_probe
from thirteen.runtime.llama.load_probe import probe_model_files
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.serve import ListenConfig

from ..conftest import tensors
from ..fixed_settings import FIXED
from ..gguf_adapters import MATRICES, write_factors, write_lora

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {**FIXED, "context": 64, "slots": 1, "prefix_bytes": 0}
IMPORT_WORKER = "import os; from thirteen.runtime.llama import load_probe_worker as worker; "
LOAD_WORKER = IMPORT_WORKER + "from itertools import count; worker._load = lambda *_: {}; worker.main()"
# Programs that stand in for the trial's own, or change it. The limits and the deaths are real.
SEGMENTATION_FAULT = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
CUT_WHILE_MAPPED = (
    IMPORT_WORKER + "made = worker.Context\n"
    "def cut(model, *rest):\n"
    "    os.truncate(model.header.path, 4096)\n"
    "    return made(model, *rest)\n"
    "worker.Context = cut; worker.main()"
)
DEATHS = {
    SEGMENTATION_FAULT: r"a trial load ended with SIGSEGV: the file is damaged or harmful$",
    CUT_WHILE_MAPPED: r"a trial load ended with SIGBUS: ",
    LOAD_WORKER.format("max(count())"): r"a trial load ended with SIGXCPU: ",
    LOAD_WORKER.format("bytearray(3 << 30)"): r"a trial load needs more than 2,[0-9,]{11} bytes of memory$",
    "import time; time.sleep(60)": r"a trial load takes more than 2 seconds$",
    # Where Python is embedded, sys.executable may be another program.
    "import sys; sys.exit(7)": r"a trial load failed with exit status 7; THIRTEEN_UNTRUSTED=never turns ",
}

Trials = Callable[[], list[list[str]]]


@pytest.fixture
def trials(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trials:
    """trials(): the names of the files of each trial load so far."""
    log = tmp_path / "trials"
    note = f"import sys; print(*sys.argv[3:], sep='|', file=open({str(log)!r}, 'a'), flush=True); "
    monkeypatch.setattr(load_probe, "_PROGRAM", note + load_probe._PROGRAM)

    def read() -> list[list[str]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [[Path(word).name for word in line.split("|")] for line in lines]

    return read


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, which no other test has recorded."""
    (path := tmp_path / "model.gguf").write_bytes(tiny.read_bytes())
    return path


def answer(*args: Any, **options: Any) -> str:
    with Engine(*args, **SMALL | options) as engine:
        return engine.answer("1 + 1?", max_tokens=4).text


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has recorded; the folder of records stays."""
    monkeypatch.setattr(trusted_files, "_recorded_here", set())


def test_an_unknown_model_is_tried_once(
    model: Path, tiny: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {answer(model)}
    for _ in range(2):
        new_process(monkeypatch)
        texts.add(answer(model))
    model.rename(renamed := model.with_name("renamed.gguf"))
    texts |= {answer(renamed), answer(tiny)}  # of the same bytes
    assert trials() == [["model.gguf"]]
    assert len(texts) == 1


def test_adapters_are_tried_with_their_model_and_once(model: Path, tmp_path: Path, trials: Trials) -> None:
    first, second = (write_lora(tmp_path / f"lora{seed}.gguf", seed) for seed in range(2))
    answer(model, adapter=first)
    answer(model, adapter=first)
    answer(model, adapters={"one": first, "two": second})
    assert trials() == [["model.gguf", "lora0.gguf"], ["model.gguf", "lora1.gguf"]]


def test_an_adapter_that_is_swapped_in_is_tried(model: Path, tmp_path: Path, trials: Trials) -> None:
    lora, candidate = (write_lora(tmp_path / f"lora{seed}.gguf", seed) for seed in range(2))
    with Engine(model, **SMALL) as engine:
        engine.swap("candidate", lora)
        engine.swap("candidate", candidate, untrusted=False)
    assert trials() == [["model.gguf"], ["model.gguf", "lora0.gguf"]]


def test_callers_and_the_environment_decide_otherwise(
    model: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(model, untrusted=False)
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "never")
    answer(model)
    assert trials() == []
    answer(model, untrusted=True)
    answer(model, untrusted=True)
    assert len(trials()) == 2
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "always")
    answer(model)
    assert len(trials()) == 3


def test_without_a_writable_cache_each_process_tries(
    model: Path, records: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.parent.mkdir()
    records.write_text("")  # a file where the folder would be, which even root cannot write to
    for _ in range(2):
        answer(model)
    assert trials() == [["model.gguf"]]
    new_process(monkeypatch)
    answer(model)
    assert trials() == [["model.gguf"]] * 2


def test_files_that_this_project_writes_are_not_tried(
    base: Callable[[str], Path], tmp_path: Path, trials: Trials
) -> None:
    convert(base("llama"), converted := tmp_path / "converted.gguf", quantization="F16", threads=1)
    answer(converted)
    assert trials() == []


@pytest.mark.skipif(sys.platform != "linux", reason="signals and limits of Linux")
@pytest.mark.parametrize("program", DEATHS)
def test_a_model_that_ends_the_process_is_one_line(
    program: str, model: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is no record: the next engine does not load it either."""
    content = model.read_bytes()
    monkeypatch.setattr(load_probe, "_PROGRAM", program)
    monkeypatch.setattr(load_probe, "_PROCESSOR_S", 1)
    monkeypatch.setattr(load_probe, "_WALL_S", 2 if "sleep" in program else 60)
    for _ in range(2 if program == CUT_WHILE_MAPPED else 1):
        model.write_bytes(content)
        with pytest.raises(FileError, match=r"/model\.gguf: " + DEATHS[program]):
            answer(model)


def test_a_program_that_cannot_be_started_tells_how_to_go_on(
    model: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(model.with_name("no-python")))
    with pytest.raises(FileError, match=r"cannot be started: .*THIRTEEN_UNTRUSTED=never"):
        answer(model)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_the_adapter_that_ends_the_process_is_named(
    model: Path, tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loras = {name: write_lora(tmp_path / f"{name}.gguf", seed) for seed, name in enumerate(("good", "bad"))}
    monkeypatch.setattr(
        load_probe,
        "_PROGRAM",
        IMPORT_WORKER + "made = worker.LoraAdapter\n"
        "def load(model, path):\n"
        "    return os.abort() if path.stem == 'bad' else made(model, path)\n"
        "worker.LoraAdapter = load; worker.main()",
    )
    with pytest.raises(FileError, match=r"/bad\.gguf: a trial load ended with SIGABRT: "):
        answer(model, adapters=loras)


def test_errors_of_the_trial_are_those_of_a_load(model: Path, tmp_path: Path, records: Path) -> None:
    """They keep their class and their words; nothing is recorded."""
    (bad := tmp_path / "bad.gguf").write_bytes(b"GGUF")
    wide = {MATRICES[0]: (tensors()[MATRICES[0]][:2, :-1], tensors()[MATRICES[0]][:, :2])}
    misfit = write_factors(tmp_path / "misfit.gguf", wide)
    for files, expected in (((bad,), FileError), ((model, misfit), FileError)):
        messages = []
        for untrusted in (True, False):
            with pytest.raises(expected) as raised:
                if untrusted:
                    probe_model_files(files[0], files[1:], untrusted=True)
                else:
                    answer(files[0], adapter=files[-1] if len(files) > 1 else None, untrusted=False)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
    assert not records.exists()
    with pytest.raises(FileError, match=r"missing\.gguf: No such file or directory$"):
        probe_model_files(tmp_path / "missing.gguf")


def test_modules_of_the_working_directory_are_not_imported(
    model: Path, tmp_path: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python puts it first on its path for a program given with -c."""
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    answer(model)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_cluster_does_not_see_a_model_that_ends_the_process(
    model: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_probe, "_PROGRAM", SEGMENTATION_FAULT)
    job = BatchJob(model, None, GenerationSettings(), 1)
    with pytest.raises(FileError, match="ended with SIGSEGV"):
        next(RayWorkers("no.such.host:1").run(job, [{1: "1 + 1?"}]))
    config = ReplicaConfig({}, {}, RequestLimits(), ListenConfig("127.0.0.1", 8080))
    with pytest.raises(FileError, match="ended with SIGSEGV"):
        deploy(Deployment(model, {}, config, ClusterOptions("no.such.host:1")), print)
