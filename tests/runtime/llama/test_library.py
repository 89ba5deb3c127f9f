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
