"""Models and adapters in a llama.cpp with AddressSanitizer and UndefinedBehaviorSanitizer.

It loads the GGUF files of the fuzz targets, and those that campaigns have added to them, as
native_loader.py does: it computes a batch, samples, and restores the KV cache. The library is compiled once
into the cache folder, from the source of the version that is installed.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import typer
from thirteen.files.cache_folder import cache_dir
from thirteen.tests.fuzz.target import BASE, corpus
from thirteen.tests.llama_cpp_source import llama_cpp_source
from thirteen.tests.runtime.llama.loader_process import LoaderProcess, is_survived

_TARGETS = ("gguf_headers", "native_files")
_OFF = (
    *("LLAMA_BUILD_COMMON", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_EXAMPLES"),
    *("LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP", "LLAMA_OPENSSL", "GGML_OPENMP"),
)
_SANITIZERS = tuple(
    f"{library}_SANITIZE_{kind}" for library in ("LLAMA", "GGML") for kind in ("ADDRESS", "UNDEFINED")
)


def build(folder: Path) -> Path:
    """Compile the library if it is not in the folder; returns the folder of its files."""
    folder.mkdir(exist_ok=True)
    source, output = llama_cpp_source(folder), folder / "build"
    options = {**dict.fromkeys(_SANITIZERS, "ON"), **dict.fromkeys(_OFF, "OFF")}
    # NDEBUG as in the library that ships: with assertions, values that overflow to infinity end the process.
    flags = "-O0 -g1 -DNDEBUG"
    options |= {"CMAKE_BUILD_TYPE": "None", "CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags}
    options |= {"BUILD_SHARED_LIBS": "ON", "CMAKE_C_COMPILER": "gcc", "CMAKE_CXX_COMPILER": "g++"}
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-S", source, "-B", output, *definitions], check=True)
    jobs = str(os.cpu_count())
    subprocess.run(["cmake", "--build", output, "--target", "llama", "--parallel", jobs], check=True)
    libraries = output / "bin"
    assert b"__asan_init" in (libraries / "libllama.so").read_bytes(), "compiled without sanitizers"
    return libraries


def environment(libraries: Path) -> dict[str, str]:
    """Variables with which llama-cpp-python loads these libraries, and Python the sanitizers first.

    AddressSanitizer finds the functions that throw C++ exceptions only if their library is there when it
    starts. Blocks of Python's own allocator would have no guard bytes.
    """
    preloaded = [_compiler_file(name) for name in ("libasan.so", "libstdc++.so.6")]
    return {
        **os.environ,
        "LLAMA_CPP_LIB_PATH": str(libraries),
        "LD_PRELOAD": " ".join(preloaded),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def _compiler_file(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def files() -> list[Path]:
    """The inputs in the repository, and those that campaigns have found."""
    grown = [path for name in _TARGETS for path in sorted((cache_dir() / "fuzz" / name).glob("*"))]
    return [path for name in _TARGETS for path in corpus(name)] + grown


def main() -> None:
    """Load all files; the exit status is 1 if one of them ended the process."""
    load = LoaderProcess(BASE, environment(build(cache_dir() / f"sanitized-{version('llama-cpp-python')}")))
    failed = [path for path in files() if not is_survived(load(path))]
    load.close()
    print(f"{load.outcomes.total()} files: {dict(load.outcomes)}")
    for path in failed:
        print(f"failed: {path}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    typer.run(main)
