"""The set-up of `make`, with a Python that only records its calls: nothing is compiled or installed."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHON = '#!/bin/sh\necho "CMAKE_ARGS=$CMAKE_ARGS" "$@" >> "$CALLS"\n'

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def make(tmp_path):
    """make(*words): make targets where only what the set-up reads is; returns how Python was called."""
    (tmp_path / "files").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "embedded.lock", "files/processors.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for program in (".venv/bin/python", ".venv/bin/pip"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text(PYTHON)
        (tmp_path / program).chmod(0o755)
    calls = tmp_path / "calls"
    variables = {"CALLS": str(calls), "THIRTEEN_CACHE": str(tmp_path / "a cache")}

    def make(*words: str) -> list[str]:
        calls.write_text("")
        subprocess.run(["make", "-s", *words], cwd=tmp_path, env=os.environ | variables, check=True)
        return calls.read_text().splitlines()

    return make


def test_a_wheel_is_compiled_for_each_processor_and_used_by_the_next_environment(make, tmp_path):
    (compiled,) = make("llama")
    (folder,) = (tmp_path / "a cache/wheels").iterdir()
    options, _, command = compiled.partition(" -m ")
    assert options.startswith("CMAKE_ARGS=-DLLAVA_BUILD=OFF ") and "-DGGML_NATIVE=ON" in options
    assert command.startswith("pip wheel ") and "--no-cache-dir" in command
    assert compiled.endswith(f"--find-links {folder} --wheel-dir {folder} llama-cpp-python>=0.3.36,<0.4")
    installed, embedded, *_ = make(".venv/run")
    assert installed.endswith(f"install --disable-pip-version-check --find-links {folder} --editable .")
    assert embedded.endswith(" --no-deps --require-hashes --requirement embedded.lock")
    with (tmp_path / "files/processors.py").open("a") as file:
        file.write("\ndef read_cpuinfo():\n    return 'another', frozenset()\n")
    make("llama")
    assert len(list(folder.parent.iterdir())) == 2
    make("clean")
    assert folder.exists() and not (tmp_path / ".venv").exists()


def test_the_lock_file_fits_pyproject():
    """`make lock` was forgotten after a change of the dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    for wanted in map(Requirement, project["dependencies"]):
        versions = [version for name, version in locked if name == canonicalize_name(wanted.name)]
        assert versions and all(map(wanted.specifier.contains, versions)), wanted
