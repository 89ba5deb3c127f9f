"""Structured mutations of GGUF files, drawn with the fuzzer's random numbers."""

from random import Random

from hypothesis import HealthCheck, given, settings

from ..runtime.llama.gguf_mutations import MutatedFile, RawFile, mutated_files

_SOURCE_BYTES = 1 << 12  # of random numbers, more than three mutations draw


def mutate_gguf(data: bytes, random: Random) -> bytes:
    """Apply one to three mutations; returns nothing for bytes that are no GGUF, or an empty one."""
    try:
        file = RawFile.decode(data)
    except ValueError:
        return b""
    if not (file.fields and file.tensors):
        return b""
    mutated: list[bytes] = []

    @settings(database=None, suppress_health_check=list(HealthCheck))
    @given(mutated_files([file]))
    def keep(value: MutatedFile) -> None:
        mutated.append(value.content)

    keep.hypothesis.fuzz_one_input(random.randbytes(_SOURCE_BYTES))  # type: ignore[attr-defined]
    return mutated[-1] if mutated else b""
