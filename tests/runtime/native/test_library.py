"""The native library in a process that aborts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ABORT = """
import ctypes, importlib, sys
importlib.import_module(sys.argv[1])
import llama_cpp.llama_cpp
llama_cpp.llama_cpp._lib.ggml_abort(b"file.c", 13, b"the model is broken")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the library runs a debugger on Linux only")
@pytest.mark.parametrize("module", ["thirteen.runtime.engine.engine", "thirteen.cluster.replica"])
def test_an_abort_runs_no_debugger(module: str, tmp_path: Path) -> None:
    """A server that aborted waited for gdb, which read the whole process, before it could be restarted."""
    debugger = tmp_path / "gdb"
    debugger.write_text("#!/bin/sh\necho a debugger runs\n")
    debugger.chmod(0o700)
    environment = {name: value for name, value in os.environ.items() if name != "GGML_NO_BACKTRACE"}
    path = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", ABORT, module],
        capture_output=True,
        text=True,
        env=environment | {"PATH": path},
        check=False,
    )
    assert done.returncode < 0
    assert "file.c:13: the model is broken" in done.stderr
    assert "a debugger runs" not in done.stdout + done.stderr


LOAD = """
import thirteen.runtime.llama.model as model
import llama_cpp
llama_cpp.Llama  # imports llama-cpp-python's classes, which print the library's messages
model.Model(pathlib.Path(sys.argv[1]))
"""


def test_messages_are_received_after_the_import_of_llama_cpp_pythons_classes(tiny: Path) -> None:
    """They were printed, and an error message said that llama.cpp gives no reason."""
    code = f"import pathlib, sys{LOAD}"
    done = subprocess.run([sys.executable, "-c", code, tiny], capture_output=True, text=True, check=True)
    assert done.stderr == ""
