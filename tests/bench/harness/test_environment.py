"""Description of machine, build and commit."""

import subprocess
from pathlib import Path

import thirteen
from thirteen.bench.harness.environment import this_build, this_commit, this_machine


def test_this_machine_and_this_build_fill_every_field():
    machine, build = this_machine(), this_build()
    assert machine.cpu and machine.architecture and machine.system and machine.python
    assert machine.cores >= 1
    assert build.thirteen and build.llama_cpp_python and "CPU" in build.llama_cpp_system


def test_commit_is_that_of_the_checkout():
    root = Path(thirteen.__file__).parent
    commit = this_commit()
    if not (root / ".git").exists():
        assert commit is None
        return
    head = subprocess.run(
        ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert commit.removesuffix("-dirty") == head.stdout[:12]
