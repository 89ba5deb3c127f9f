"""llama.cpp compiled for Arm, run by qemu-user: every type that a plan for Arm may choose; `make arm`.

The source is that of llama-cpp-python's own archive, so the same version as here. An emulator says nothing of
speed; what it shows is that the files load, which kernels they get, and that those compute the same.
"""

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from thirteen.cache import cache_dir
from thirteen.convert.costs import costs_for
from thirteen.gguf_file import read_header
from thirteen.runtime.engine import Engine
from thirteen.runtime.need import REPACKED, copied_bytes
from thirteen.runtime.request import Request

pytestmark = pytest.mark.arm

HERE = Path(__file__).parent
TOOLS = ("cmake", "ninja", "aarch64-linux-gnu-g++", "qemu-aarch64")
# Greedy answers to sums hang on near ties, which kernels decide otherwise: on x86 too, with weights laid out
# anew or not. This one is sure of its words in every type; where a type makes it say something else, it is
# sure of that.
QUESTION = "What is the capital of France?"
COUNT = 8  # tokens


@pytest.fixture(scope="session")
def greedy() -> Path:
    """The program greedy.cpp for Arm, compiled if it is not in the cache."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    release = version("llama-cpp-python")
    folder = cache_dir() / f"arm-{release}"
    source, build, program = _source(folder, release), folder / "build", folder / "greedy"
    program.mkdir(exist_ok=True)  # a place that stays, whichever checkout this is: cmake binds a build to it
    for name in ("CMakeLists.txt", "greedy.cpp"):
        shutil.copy2(HERE / name, program)
    configure = ["cmake", "-G", "Ninja", "-S", str(program), "-B", str(build), f"-DLLAMA_CPP={source}"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(build), "--target", "greedy"], check=True)
    return build / "greedy"


def _source(folder: Path, release: str) -> Path:
    source = folder / "llama.cpp"
    if not source.exists():
        wanted = f"llama-cpp-python=={release}"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            str(folder),
        ]
        subprocess.run([*pip, wanted], check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (unpacked,) = folder.glob("*/vendor/llama.cpp")
        unpacked.rename(source)
    return source


@pytest.fixture(scope="session")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """typed(name): the embedded model in a type, as far as its rows allow."""
    folder = tmp_path_factory.mktemp("types")

    def write(name: str) -> Path:
        path = folder / f"{name}.gguf"
        convert = ["convert", "embedded", "--type", name, "--output", str(path)]
        subprocess.run([sys.executable, "-m", "thirteen", *convert], check=True, capture_output=True)
        return path

    return write


@pytest.mark.parametrize("name", sorted(costs_for("arm").layer))
def test_every_type_for_arm_loads_is_laid_out_anew_and_answers_as_here(
    name: str, greedy: Path, typed: Callable[[str], Path]
) -> None:
    model = typed(name)
    with Engine(model, threads=2, slots=1) as engine:
        prompt = engine.request(QUESTION).tokens
        here = engine.submit(Request(prompt, COUNT), wait=True)
        tokens = [token for piece in here for token in piece.tokens]
    command = ["qemu-aarch64", "-cpu", "max,sve=off,sme=off", str(greedy), str(model), str(COUNT), "2"]
    done = subprocess.run(
        command, input=" ".join(map(str, prompt)), capture_output=True, text=True, check=True, timeout=1200
    )
    there = list(map(int, done.stdout.split()))
    found = re.search(r"CPU_REPACK model buffer size = +([0-9.]+) MiB", done.stderr)
    repacked = float(found[1]) * (1 << 20) if found else 0
    alike = "alike" if there == tokens else "NOT alike"
    print(f"{name}: {repacked / 1e6:.1f} MB laid out anew, {len(there)} tokens {alike}")
    assert there == tokens
    assert repacked == pytest.approx(copied_bytes(read_header(model), REPACKED["DOTPROD"]), rel=0.01, abs=1e4)
    model.unlink()
