"""Settings to choose from: what the options leave open, as far as it fits in memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from thirteen.errors import InsufficientMemoryError, RequestError
from thirteen.files.gguf.header import Header, read_header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.plan import candidates, memory
from thirteen.runtime.plan.candidates import find_candidates
from thirteen.runtime.plan.memory import estimate_memory
from thirteen.runtime.plan.options import EngineOptions, default_settings

from ..tiny_decoders import write_decoder


def memory_of(header: Header, options: EngineOptions, **changes: Any) -> int:
    """Bytes that must be available for some settings."""
    estimate = estimate_memory(header, replace(default_settings(options), **changes))
    return estimate.total_bytes - estimate.program_bytes


def ways(header: Header, options: EngineOptions) -> list[tuple[bool | None, str, int]]:
    """The attention, KV type and context of the candidates."""
    found = find_candidates(default_settings(options), options, header).ways
    return [(way.flash_attention, way.kv, way.context) for way in found]


@pytest.fixture(autouse=True)
def available(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """available(nbytes): the memory that a process can have; no processor multiplies bfloat16."""
    monkeypatch.setattr(candidates, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(memory, "reserved_bytes", lambda _: 0)
    return lambda nbytes: monkeypatch.setattr(memory, "available_bytes", lambda: nbytes)


def test_what_takes_less_memory_is_decided_by_the_memory(
    wide_heads: Path, available: Callable[[int], None]
) -> None:
    """First flash attention, whose scores are not stored, and then a KV cache in q8_0."""
    options, header = EngineOptions(context=256, batch=64, threads=1), read_header(wide_heads)
    standard, flash, quantized = (False, "f16", 256), (True, "f16", 256), (True, "q8_0", 256)
    most = memory_of(header, options, flash_attention=False)
    less, least = (memory_of(header, options, kv=kv) for kv in ("f16", "q8_0"))
    assert least < less < most
    for nbytes, found in (
        (most, [flash, standard]),
        (most - 1, [flash]),
        (less, [flash]),
        (less - 1, [quantized]),
        (least, [quantized]),
        (least - 1, [flash, standard]),  # nothing helps
    ):
        available(nbytes)
        assert ways(header, options) == found
    short = EngineOptions(context=64)  # standard attention has a smaller micro-batch
    available(memory_of(header, short, flash_attention=False))
    assert ways(header, short) == [(False, "f16", 64)]
    available(0)
    with pytest.raises(InsufficientMemoryError):
        Engine(wide_heads, **options)


def test_an_open_context_is_halved_at_last(smollm2: Path, available: Callable[[int], None]) -> None:
    header, options = read_header(smollm2), EngineOptions(threads=1)
    available(memory_of(header, options, kv="q8_0", context=2048))
    assert ways(header, options) == [(True, "q8_0", 2048)]
    given = options | EngineOptions(context=4096)  # check_memory() refuses it
    assert ways(header, given) == [(True, "f16", 4096), (False, "f16", 4096)]


def test_heads_that_q8_0_cannot_hold_keep_f16(tiny: Path, available: Callable[[int], None]) -> None:
    """They have 16 values, and a block of q8_0 has 32."""
    header, options = read_header(tiny), EngineOptions(context=256)
    available(memory_of(header, options) - 1)
    assert {one[1] for one in ways(header, options)} == {"f16"}
    assert {one[1] for one in ways(header, EngineOptions(profile="phone"))} == {"f16"}


def test_nothing_is_measured_for_a_state_that_cannot_go_back(
    tmp_path: Path, available: Callable[[int], None]
) -> None:
    header = read_header(write_decoder(tmp_path / "a.gguf", "mamba"))
    available(1 << 40)
    assert find_candidates(default_settings(EngineOptions()), EngineOptions(), header).decided


def test_an_engine_with_little_memory_has_a_cache_in_q8_0(
    wide_heads: Path, available: Callable[[int], None]
) -> None:
    options = EngineOptions(batch=64, threads=1)
    available(memory_of(read_header(wide_heads), options) - 1)
    with Engine(wide_heads, **options) as engine:
        settings = engine.plan.settings
        assert (settings.kv, settings.flash_attention) == ("q8_0", True)
        assert engine.answer("1 + 1?", max_tokens=4).usage.completion_tokens == 4


def test_standard_attention_cannot_read_a_quantized_cache(tiny: Path) -> None:
    with pytest.raises(RequestError, match="kv q8_0 needs flash attention"):
        Engine(tiny, kv="q8_0", flash_attention=False)
