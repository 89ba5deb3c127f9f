"""Profiles with the real library: an engine allocates what its profile says."""

import subprocess
import sys
from dataclasses import replace

import gguf
import numpy as np
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.profile import PROFILES, Profile

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"


# Prints the anonymous memory that an engine adds. Each measurement runs in a new process: in an old one, the
# allocator may have free memory left for one engine and not for another.
GROWTH = """
import re, sys
from pathlib import Path
from thirteen.runtime.engine.engine import Engine

def anonymous_bytes():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

before = anonymous_bytes()
with Engine(sys.argv[1], profile=sys.argv[2], kv="f16", context=64, slots=1, threads=1) as engine:
    engine.answer("1", max_tokens=1)
    print(anonymous_bytes() - before)
"""


def added_bytes(path, profile):
    command = [sys.executable, "-c", GROWTH, path, profile]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def measured(profile):
    """Fields that a profile may leave to a measurement."""
    return {name: getattr(profile, name) for name in ("flash_attention", "kv", "micro_batch")}


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_answers(smollm2, name):
    with Engine(smollm2, profile=name, threads=1) as engine:
        profile, open_names = PROFILES[name], ("flash_attention", "kv", "micro_batch")
        given = {one: getattr(profile, one) for one in open_names}
        assert (replace(engine.profile, **given), engine.context) == (profile, profile.context)
        chosen = {one: getattr(engine.profile, one) for one in open_names}
        assert all(chosen[one] == value for one, value in given.items() if value is not None)
        assert chosen["kv"] in ("f16", "bf16", "q8_0") and chosen["flash_attention"] in (True, False)
        params = engine._runner._context.params
        assert (params.slots, params.batch) == (profile.slots, profile.batch)
        assert {one: getattr(params, one) for one in open_names} == chosen
        assert engine.answer(QUESTION, max_tokens=4).usage.completion_tokens == 4


def test_the_phone_profile_holds_no_repacked_copy_of_the_weights(tmp_path, write_tiny):
    """The weights are Q4_0, which processors repack; those of SmolLM2 are not repacked."""
    assert PROFILES["laptop"].repack and not PROFILES["phone"].repack
    width = 1 << 17
    shapes = {"ffn_gate": (width, 64), "ffn_up": (width, 64), "ffn_down": (64, width)}
    weights = {
        f"blk.{layer}.{name}.weight": np.zeros((rows, columns // 32 * 18), np.uint8)
        for layer in range(2)
        for name, (rows, columns) in shapes.items()
    }
    keys = {"llama.feed_forward_length": (width, gguf.GGUFValueType.UINT32, None)}
    path = write_tiny(tmp_path / "wide.gguf", keys, weights)
    copy = sum(array.nbytes for array in weights.values())
    added = {name: added_bytes(path, name) for name in ("phone", "laptop")}
    if added["laptop"] < copy / 2:
        pytest.skip("this processor repacks no weights")
    assert added["phone"] < added["laptop"] - copy / 2


def test_keywords_override_the_profile(smollm2):
    profile = Profile(context=64, slots=2, batch=32, kv="f16", repack=False, prefix_bytes=0)
    with Engine(smollm2, profile=profile, slots=3, kv="q8_0", threads=1) as engine:
        assert (engine.profile.slots, engine.profile.kv, engine.profile.batch) == (3, "q8_0", 32)


@pytest.mark.parametrize(
    "invalid",
    [{"profile": "tablet"}, {"context": "many"}, {"prefix_bytes": -1}, {"slots": 513}],
)
def test_invalid_values_are_rejected(smollm2, invalid):
    with pytest.raises(RequestError, match=next(iter(invalid))):
        Engine(smollm2, **invalid)
