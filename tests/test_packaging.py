"""The wheel holds every package and its data, and works without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = {".json", ".js", ".css", ".html", ".svg", ".toml", ".jsonl", ".jinja", ".safetensors", ".woff2"}
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
HERE = ("PYTHONPATH", "MYPYPATH")  # variables by which a program finds this checkout
IMPORT_ALL = """
import importlib, pkgutil, thirteen
names = [module.name for module in pkgutil.walk_packages(thirteen.__path__, "thirteen.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(thirteen.__file__, len(names))
"""


def tracked(pattern: str) -> list[Path]:
    """The files of the working tree that belong to the project."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", pattern]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).exists()]


def modules() -> list[Path]:
    return [path for path in tracked("*.py") if path.parts[0] not in (".ci", "tests", "lab", "examples")]


def test_every_package_is_listed():
    """A package that is not listed would be missing from the wheel, and only from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == sorted({".".join(("thirteen", *path.parent.parts)) for path in modules()})
    assert all((ROOT / path.parent / "__init__.py").exists() for path in modules())


def copy_tracked(folder: Path) -> Path:
    """Copy the files that git tracks into a new folder."""
    for path in tracked("."):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


def run(*words: object, cwd: Path) -> str:
    """Run a program that does not see this checkout; returns its standard output."""
    environment = {name: value for name, value in os.environ.items() if name not in HERE}
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_environment(folder: Path, *words: object) -> Path:
    """Make an environment and install into it without dependencies; returns its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    run(*PIP, "--python", python, "install", "--no-deps", *words, cwd=folder)
    return python


@pytest.mark.exhaustive
def test_sources_and_wheel_work_in_a_fresh_environment(tmp_path):
    """The wheel is made from the archive of the sources, as `make wheel` does."""
    source = copy_tracked(tmp_path / "source")
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", build, cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    run(*PIP, "wheel", "--no-deps", "--wheel-dir", tmp_path, archive, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    python = make_environment(tmp_path / "venv", wheel)
    (site,) = tmp_path.glob("venv/lib/*/site-packages")
    # The dependencies of this environment, without its editable install of the checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    place, count = run(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert Path(place) == site / "thirteen/__init__.py"
    assert int(count) + 1 == len(modules())
    assert "smollm2-135m-sums-13" in run(tmp_path / "venv/bin/thirteen", "models", cwd=tmp_path)
    folders = ("models", "runtime", "convert", "web", "bench")
    data = [path for folder in folders for path in tracked(folder) if path.suffix in DATA]
    assert len(data) > 30
    assert all((site / "thirteen" / path).exists() for path in data)


@pytest.mark.exhaustive
def test_an_editable_install_shows_its_types(tmp_path):
    """With setuptools' own finder mypy found no module."""
    checkout = copy_tracked(tmp_path / "checkout")
    python = make_environment(tmp_path / "venv", "--editable", checkout)
    (tmp_path / "use.py").write_text("from thirteen import Engine\nreveal_type(Engine().answer('x').value)\n")
    mypy = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent"]
    shown = run(*mypy, "--python-executable", python, "use.py", cwd=tmp_path)
    assert 'Revealed type is "str | None"' in shown
