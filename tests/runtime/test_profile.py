"""Profiles with the real library: an engine allocates what its profile says."""

from dataclasses import replace

import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.profile import PROFILES, Profile

pytestmark = pytest.mark.slow

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_answers(smollm2, name):
    with Engine(smollm2, profile=name, threads=1) as engine:
        profile, open_names = PROFILES[name], ("flash_attention", "kv")
        given = {one: getattr(profile, one) for one in open_names}
        assert (replace(engine.profile, **given), engine.context) == (profile, profile.context)
        chosen = {one: getattr(engine.profile, one) for one in open_names}
        assert all(chosen[one] == value for one, value in given.items() if value is not None)
        assert chosen["kv"] in ("f16", "bf16", "q8_0") and chosen["flash_attention"] in (True, False)
        params = engine._runner._context.params
        assert (params.slots, params.batch) == (profile.slots, profile.batch)
        assert {one: getattr(params, one) for one in open_names} == chosen
        assert engine.answer(QUESTION, max_tokens=4).usage.completion_tokens == 4


def test_keywords_override_the_profile(smollm2):
    profile = Profile(context=64, slots=2, batch=32, kv="f16", repack=False, prefix_bytes=0)
    with Engine(smollm2, profile=profile, slots=3, kv="q8_0", threads=1) as engine:
        assert (engine.profile.slots, engine.profile.kv, engine.profile.batch) == (3, "q8_0", 32)


@pytest.mark.parametrize(
    "invalid", [{"profile": "tablet"}, {"context": "many"}, {"prefix_bytes": -1}, {"slots": 513}]
)
def test_invalid_values_are_rejected(smollm2, invalid):
    with pytest.raises(RequestError, match=next(iter(invalid))):
        Engine(smollm2, **invalid)
