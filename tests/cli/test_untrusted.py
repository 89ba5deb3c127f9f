"""THIRTEEN_UNTRUSTED, and serve --untrusted: a model is loaded on trial first; a crash there is one line."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from ..commands import Commands
from ..runtime.conftest import write_gguf

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# Python runs this module at each start; of all programs, only a trial load ends here.
CRASH = """
import os, signal, sys
if any("load_probe_worker" in word for word in sys.orig_argv):
    os.kill(os.getpid(), signal.SIGSEGV)
"""
COMMANDS = {
    "ask": ("ask", "MODEL", "1 + 1?"),
    "serve": ("serve", "MODEL", "--port", "0"),
    "batch": ("batch", "QUESTIONS", "MODEL", "--out", "OUT", "--threads", "1"),
    "accuracy": ("bench", "accuracy", "MODEL", "--data", "QUESTIONS"),
    "fidelity": ("bench", "fidelity", "MODEL", "MODEL"),
    "latency": ("bench", "latency", "MODEL", "MODEL"),
    "bench": ("bench", "MODEL"),
    "memory": ("bench", "memory", "MODEL"),
    "peers": ("bench", "peers", "MODEL"),
    "report": ("bench", "report", "MODEL", "MODEL", "--out", "OUT"),
    "doctor tune": ("doctor", "--tune", "--model", "MODEL"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a model and of questions."""
    folder = tmp_path_factory.mktemp("untrusted")
    write_gguf(folder / "MODEL", {}, {})
    (folder / "QUESTIONS").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    return folder


@pytest.fixture(scope="module")
def crash(folder):
    """Runs commands whose trial loads all end with a signal."""
    (folder / "sitecustomize.py").write_text(CRASH)
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", ""))))
            patch.setenv("THIRTEEN_CACHE", str(folder / "cache"))
            patch.setenv("THIRTEEN_UNTRUSTED", "always")
            commands = stack.enter_context(Commands())
        yield commands


@pytest.mark.parametrize("name", COMMANDS)
def test_a_model_that_ends_the_process_is_one_line(name, crash, folder, tmp_path):
    paths = {"MODEL": folder / "MODEL", "QUESTIONS": folder / "QUESTIONS", "OUT": tmp_path / "out"}
    done = crash(*(paths.get(word, word) for word in COMMANDS[name]))
    message = f"{folder / 'MODEL'}: a trial load ended with SIGSEGV: the file is damaged or harmful"
    assert (done.status, done.stderr) == (2, f"error: {message}\n")
    assert not done.stdout and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_serve_tries_a_model_by_its_option(folder, tmp_path):
    """The tests turn trial loads off otherwise."""
    path = os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | {"PYTHONPATH": path, "THIRTEEN_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "thirteen", "serve", folder / "MODEL", "--port", "0", "--untrusted"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "a trial load ended with SIGSEGV" in done.stderr
