"""Test helper: programs for aarch64, compiled with the llama.cpp that is installed."""

import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

from thirteen.files.cache_folder import cache_dir

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
    source, build, programs = _llama_cpp_source(folder), folder / architecture, folder / "programs"
    programs.mkdir(exist_ok=True)  # cmake ties a build to this folder, so it must not depend on the checkout
    for path in (HERE / "CMakeLists.txt", *HERE.glob("*.cpp")):
        shutil.copy2(path, programs)
    definitions = (f"-DLLAMA_CPP={source}", f"-DGGML_CPU_ARM_ARCH={architecture}")
    configure = ["cmake", "-G", "Ninja", "-S", str(programs), "-B", str(build), *definitions]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(build), "--target", name], check=True)
    return build / name


def _llama_cpp_source(folder: Path) -> Path:
    """The source in a folder, downloaded in the archive of llama-cpp-python if it is not there."""
    source = folder / "llama.cpp"
    if not source.exists():
        wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
        options = ["--no-deps", "--no-binary", ":all:", "-d", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (unpacked,) = folder.glob("*/vendor/llama.cpp")
        unpacked.rename(source)
    return source
