"""Description of machine and build."""

from thirteen.bench.environment import this_build, this_machine


def test_this_machine_and_this_build_fill_every_field():
    machine, build = this_machine(), this_build()
    assert machine.cpu and machine.architecture and machine.system and machine.python
    assert machine.cores >= 1
    assert build.thirteen and build.llama_cpp_python and "CPU" in build.llama_cpp_system
