"""Test helper: programs for aarch64, compiled with the llama.cpp that is installed."""

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from thirteen.files.cache_folder import cache_dir

from ..llama_cpp_source import llama_cpp_source

HERE = Path(__file__).parent
TOOLS = ("cmake", "ninja", "aarch64-linux-gnu-g++", "qemu-aarch64")


def missing_tools() -> list[str]:
    """The programs that are needed and not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def build_program(name: str, architecture: str) -> Path:
    """A program of CMakeLists.txt, compiled if it is not in the cache.

    Args:
        name: greedy or mul_mat.
        architecture: of the kernels, as for g++ -march.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    folder = cache_dir() / f"arm-{version('llama-cpp-python')}"
    source, build, programs = llama_cpp_source(folder), folder / architecture, folder / "programs"
    programs.mkdir(exist_ok=True)  # cmake ties a build to this folder, so it must not depend on the checkout
    for path in (HERE / "CMakeLists.txt", *HERE.glob("*.cpp")):
        shutil.copy2(path, programs)
    definitions = (f"-DLLAMA_CPP={source}", f"-DGGML_CPU_ARM_ARCH={architecture}")
    configure = ["cmake", "-G", "Ninja", "-S", str(programs), "-B", str(build), *definitions]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(build), "--target", name], check=True)
    return build / name
