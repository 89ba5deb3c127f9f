"""Packages whose `__init__` runs only when it is needed; each case in an interpreter of its own."""

import subprocess
import sys

import pytest

LAZILY = "import sys; from thirteen.files.lazy_package import import_lazily; import_lazily()"
LOADS = "print(int('gguf.gguf_writer' in sys.modules), int('llama_cpp.llama' in sys.modules))"


@pytest.mark.parametrize(
    "steps",
    [
        {
            "import thirteen.runtime.engine.engine": "0 0",
            "import gguf; assert not hasattr(gguf, '__path')": "0 0",
            "from gguf import GGUFWriter": "1 0",
            "import llama_cpp; llama_cpp.Llama": "1 1",
        },
        {
            "import llama_cpp; llama_cpp.__version__": "0 1",
            "import gguf; gguf.constants.GGUFValueType": "1 1",
        },
    ],
)
def test_a_package_is_loaded_when_an_attribute_is_asked_for(steps):
    code = "\n".join((LAZILY, *(f"{step}\n{LOADS}" for step in steps)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(steps.values())


def test_only_a_process_of_its_own_has_lazy_packages():
    """`import thirteen.runtime` replaced modules in somebody's program."""
    code = "import sys, thirteen.runtime, thirteen.cli.main; print({'gguf', 'llama_cpp'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
