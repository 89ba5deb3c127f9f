"""Test helper: the source of the llama.cpp that is installed."""

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path


def llama_cpp_source(folder: Path) -> Path:
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
