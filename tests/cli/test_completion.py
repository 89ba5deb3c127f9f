"""Completion in a shell: what is installed, what is completed, and errors."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

THIRTEEN = f"{sys.executable} -m thirteen"


def bash(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    # "; exit" keeps bash from becoming the command itself, whose shell is looked up among its parents.
    words = ["bash", "--norc", "-c", f"{script}; exit $?"]
    return subprocess.run(words, env=os.environ | env, capture_output=True, text=True, check=False)


def complete(line: str) -> list[str]:
    words = line.split(" ")
    env = {"_THIRTEEN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = bash(THIRTEEN, **env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("thirteen bat", ["batch"]),
        ("thirteen ask --sch", ["--schema"]),
        ("thirteen bench acc", ["accuracy"]),
        ("thirteen --version do", ["doctor"]),  # it printed the version among the completions
    ],
)
def test_commands_and_options_are_completed(line, completed):
    assert complete(line) == completed


def test_the_script_is_for_the_command_also_where_a_module_prints_it():
    """It completed `python -m thirteen`, which no shell takes for a command."""
    done = bash(f"{THIRTEEN} --show-completion")
    assert done.returncode == 0, done
    assert "complete -o default -F _thirteen_completion thirteen" in done.stdout


def test_a_home_folder_that_cannot_be_written_is_one_line():
    done = bash(f"{THIRTEEN} --install-completion", HOME="/proc/thirteen")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
    assert done.stderr.startswith("error: /proc/thirteen")
