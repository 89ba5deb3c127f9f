"""Completion in a shell; typer has tests of its own."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def bash(arguments: str = "", **env: str) -> subprocess.CompletedProcess[str]:
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
