"""The set-up of `make`, with a Python that only records its calls: nothing is compiled or installed."""

import os
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


class Checkout:
    """A copy of what the set-up reads, and an environment that is there already."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.cache = root, root / "calls", root / "a cache"
        (root / "files").mkdir()
        read = ("Makefile", "pyproject.toml", "requirements.lock", "embedded.lock", "files/processors.py")
        for name in read:
            shutil.copy(ROOT / name, root / name)
        for venv in (".venv", ".venv-locked"):
            (root / venv / "bin").mkdir(parents=True)
            for name in ("python", "pip"):
                (root / venv / "bin" / name).write_text(PYTHON)
                (root / venv / "bin" / name).chmod(0o755)

    def make(self, *words: str) -> list[str]:
        """Make a target; returns how Python was called."""
        self.calls.write_text("")
        variables = {"CALLS": str(self.calls), "THIRTEEN_CACHE": str(self.cache)}
        subprocess.run(["make", "-s", *words], cwd=self.root, env=os.environ | variables, check=True)
        return self.calls.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_a_wheel_is_compiled_for_each_processor_and_used_by_the_next_environment(checkout):
    (compiled,) = checkout.make("llama")
    (folder,) = (checkout.cache / "wheels").iterdir()
    options, _, command = compiled.partition(" -m ")
    assert options.startswith("CMAKE_ARGS=-DLLAVA_BUILD=OFF ") and "-DGGML_NATIVE=ON" in options
    assert command.startswith("pip wheel ") and "--no-cache-dir" in command
    assert compiled.endswith(f"--find-links {folder} --wheel-dir {folder} llama-cpp-python>=0.3.36,<0.4")
    installed, embedded, *_ = checkout.make(".venv/run")
    assert installed.endswith(f"install --disable-pip-version-check --find-links {folder} --editable .")
    assert embedded.endswith(" --no-deps --require-hashes --requirement embedded.lock")
    with (checkout.root / "files/processors.py").open("a") as file:
        file.write("\ndef read_cpuinfo():\n    return 'another', frozenset()\n")
    checkout.make("llama")
    assert len(list((checkout.cache / "wheels").iterdir())) == 2
    checkout.make("clean")
    assert folder.exists() and not (checkout.root / ".venv").exists()


def test_the_lock_file_fits_pyproject_and_has_a_hash_for_each_package():
    """`make lock` was forgotten after a change of the dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    locked: dict[str, set[str]] = {}
    for line in (one for one in lines if one and not one.lstrip().startswith("#")):
        requirement = Requirement(line.partition(" --hash")[0])
        assert "--hash=sha256:" in line, line
        locked.setdefault(canonicalize_name(requirement.name), set()).update(
            one.version for one in requirement.specifier
        )
    for wanted in map(Requirement, project["dependencies"]):
        versions = locked[canonicalize_name(wanted.name)]
        assert versions and all(wanted.specifier.contains(one) for one in versions), wanted
