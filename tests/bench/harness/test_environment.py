"""Description of machine, build and commit."""

import subprocess
from pathlib import Path

import thirteen
from thirteen.bench.harness.environment import _parse_cpuinfo, this_build, this_commit, this_machine

X86 = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse avx avx2 fma avx512f\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


def test_cpuinfo_gives_name_and_features():
    assert _parse_cpuinfo(X86) == ("AMD EPYC", ("avx", "avx2", "fma", "avx512f"))
    assert _parse_cpuinfo(ARM) == ("Raspberry Pi 5 Model B Rev 1.0", ("asimd", "asimddp", "i8mm"))
    assert _parse_cpuinfo("") == ("", ())


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
