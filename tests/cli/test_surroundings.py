"""Unusual surroundings of a command: no home folder, file names that are not UTF-8, completion in a shell."""

import json
import os
import subprocess
import sys

import pytest

from ..runtime.conftest import typed, write_gguf

pytestmark = pytest.mark.slow

NO_HOME = """
import os, pwd, sys
for name in ("HOME", "THIRTEEN_CACHE", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
sys.argv = ["thirteen", *sys.argv[1:]]
from thirteen.cli.main import main
main()
"""
SHORT = ("--max-tokens", "3", "--threads", "1", "--context", "64")


def run(*words, code="", **env):
    start = ["-c", code] if code else ["-m", "thirteen"]
    command = [sys.executable, *start, *(word if isinstance(word, bytes) else str(word) for word in words)]
    environment = {**os.environ, **env}
    return subprocess.run(command, capture_output=True, check=False, env=environment, timeout=120)


def check_one_line(done, *expected):
    assert done.returncode == 2, done
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1, done
    assert all(part in done.stderr for part in expected), done


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", {"general.name": typed("é 数")}, {})


def test_without_a_home_folder_the_default_model_is_a_clear_error():
    check_one_line(run("ask", "Why?", code=NO_HOME), b"home folder", b"THIRTEEN_CACHE")


def test_the_catalogue_is_shown_without_a_cache():
    done = run("models", THIRTEEN_CACHE="/proc/nosuch")
    assert done.returncode == 0 and b"llama-3.2-1b" in done.stdout
    assert done.stderr.endswith(b"set THIRTEEN_CACHE to a folder that can be written to\n")


@pytest.mark.exhaustive
def test_a_llama_cpp_that_cannot_be_loaded_is_a_clear_error(model, tmp_path):
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp/__init__.py").touch()
    (tmp_path / "llama_cpp/llama_cpp.py").write_text("raise RuntimeError('no libgomp.so.1')")
    env = {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    check_one_line(run("ask", model, "Why?", **env), b"llama.cpp cannot be loaded", b"no libgomp.so.1")
    done = run("doctor", **env)
    assert done.returncode == 1 and b"wrong: FileError: llama.cpp cannot be loaded" in done.stdout, done


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only names in Unicode")
def test_a_file_name_that_is_not_utf_8_works(model, tmp_path):
    odd = os.path.join(os.fsencode(tmp_path), b"mod\xffel.gguf")  # noqa: PTH118 - of bytes
    os.link(model, odd)
    env = {"PYTHONIOENCODING": "ascii"}
    done = run("models", odd, "--json", **env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.fsencode(json.loads(done.stdout)["path"]) == odd
    done = run("ask", odd, "Why?", *SHORT, **env)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done
    output = os.path.join(os.fsencode(tmp_path), b"out\xfe.gguf")  # noqa: PTH118
    done = run("convert", odd, "-o", output, "--type", "F16", "--threads", "1", **env)
    assert done.returncode == 0, done
    check_one_line(run("serve", odd, "--port", "0", **env), b"not UTF-8", b"--name")


def bash(arguments="", **env):
    # "; exit" keeps bash from becoming the command itself, whose shell is looked up among its parents.
    words = ["bash", "--norc", "-c", f"{sys.executable} -m thirteen {arguments}; exit $?"]
    return subprocess.run(words, env=os.environ | env, capture_output=True, text=True, check=False)


def test_commands_are_completed():
    for line, completed in (
        ("thirteen bench acc", "accuracy\n"),
        ("thirteen --version do", "doctor\n"),  # it printed the version among the completions
    ):
        count = str(line.count(" "))
        done = bash(_THIRTEEN_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=count)
        assert (done.returncode, done.stdout, done.stderr) == (0, completed, "")


def test_the_script_is_for_the_command_also_where_a_module_prints_it():
    """It completed `python -m thirteen`, which no shell takes for a command."""
    done = bash("--show-completion")
    assert "complete -o default -F _thirteen_completion thirteen" in done.stdout, done


def test_a_home_folder_that_cannot_be_written_is_one_line():
    done = bash("--install-completion", HOME="/proc/thirteen")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
    assert done.stderr.startswith("error: /proc/thirteen")
