"""Names and flags of processors."""

import pytest
from thirteen.files import processors
from thirteen.files.processors import multiplies_bf16, parse_cpuinfo

X86 = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse avx avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd i8mm\n\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


def test_cpuinfo_gives_name_and_flags():
    assert parse_cpuinfo(X86) == ("AMD EPYC", {"fpu", "sse", "avx", "avx2"})
    assert parse_cpuinfo(ARM) == ("Raspberry Pi 5 Model B Rev 1.0", {"fp", "asimd", "i8mm"})
    assert parse_cpuinfo("") == ("", frozenset())


@pytest.mark.parametrize(("flag", "expected"), [("avx512_bf16", True), ("bf16", True), ("avx2", False)])
def test_the_flags_tell_whether_bfloat16_is_native(monkeypatch, flag, expected):
    monkeypatch.setattr(processors, "read_cpuinfo", lambda: ("", frozenset({flag, "sse2"})))
    assert multiplies_bf16() == expected
