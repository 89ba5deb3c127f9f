"""Choice between flash and standard attention: measured once, saved, and the same for every engine."""

import json
from dataclasses import replace

import numpy as np
import pytest
from thirteen.errors import InsufficientMemoryError, ModelFileError, RequestError
from thirteen.runtime.engine import engine as engine_module
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import attention, memory_estimate
from thirteen.runtime.llama.attention import (
    AttentionTimes,
    choose_attention,
    known_attention,
    limit_attention,
    measure_attention,
)
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.logits import log_softmax
from thirteen.runtime.llama.memory_estimate import estimate_memory
from thirteen.runtime.llama.model import Model
from thirteen.runtime.profile import PROFILES

LAPTOP = PROFILES["laptop"]
STANDARD, FLASH = (2.0, 1.0), (1.0, 1.0)  # seconds of flash and standard attention, by what they lead to


@pytest.fixture(autouse=True)
def saved(monkeypatch, tmp_path):
    """The folder of saved choices, empty."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch):
    """measured(seconds): what a measurement returns."""

    def measured(*seconds):
        monkeypatch.setattr(attention, "measure_attention", lambda *_: AttentionTimes(*seconds))

    return measured


@pytest.fixture(scope="module")
def model(tiny):
    with Model(tiny) as model:
        yield model


def test_both_ways_are_timed(model):
    times = measure_attention(model, 1)
    assert 0 < times.flash_s < 60 and 0 < times.standard_s < 60


@pytest.mark.parametrize("seconds", [FLASH, STANDARD, (1.0, 0.97), (1.0, 3.0)])
def test_standard_attention_must_be_clearly_faster_and_is_not_measured_again(model, saved, measured, seconds):
    measured(*seconds)
    flash = choose_attention(LAPTOP, model, 1).flash_attention
    assert flash is (seconds != STANDARD)
    (file,) = saved.iterdir()
    record = json.loads(file.read_text())
    assert (record["flash_attention"], record["flash_s"], record["standard_s"]) == (flash, *seconds)
    measured(*(FLASH if seconds == STANDARD else STANDARD))
    assert choose_attention(LAPTOP, model, 1).flash_attention is flash
    assert known_attention(LAPTOP, model.header, 1) is flash
    assert choose_attention(LAPTOP, model, 2).flash_attention is not flash  # measured on its own


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"flash_attention"', "7"])
def test_a_damaged_choice_is_measured_again(model, saved, measured, text):
    measured(*STANDARD)
    choose_attention(LAPTOP, model, 1)
    (file,) = saved.iterdir()
    file.write_text(text)
    assert known_attention(LAPTOP, model.header, 1) is None
    assert choose_attention(LAPTOP, model, 1).flash_attention is False
    assert json.loads(file.read_text())["standard_s"] == 1


def test_without_a_cache_folder_the_choice_is_made_all_the_same(model, measured, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "file"))
    measured(*STANDARD)
    assert choose_attention(LAPTOP, model, 1).flash_attention is False


def test_a_quantized_kv_cache_and_a_given_way_are_not_measured(model, monkeypatch):
    monkeypatch.setattr(attention, "measure_attention", None)
    assert choose_attention(PROFILES["phone"], model, 1).flash_attention is True
    for flash in (True, False):
        given = replace(LAPTOP, flash_attention=flash)
        assert choose_attention(given, model, 1) == given


def test_scores_that_do_not_fit_in_memory_are_not_stored(model, measured, monkeypatch):
    measured(*STANDARD)
    flash, standard = (
        estimate_memory(model.header, replace(LAPTOP, context=256, batch=64, flash_attention=flash))
        for flash in (True, False)
    )
    profile = replace(LAPTOP, context=256, batch=64)
    between = (flash.total_bytes + standard.total_bytes) // 2 - flash.program_bytes
    assert flash.total_bytes < standard.total_bytes
    monkeypatch.setattr(memory_estimate, "reserved_bytes", lambda _: 0)
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: between)
    assert limit_attention(profile, model.header, 1).flash_attention is True
    assert limit_attention(replace(profile, gpu_layers=1), model.header, 1).flash_attention is None
    memory_estimate.check_memory(model.header, profile, 1)
    with pytest.raises(InsufficientMemoryError):
        memory_estimate.check_memory(model.header, replace(profile, flash_attention=False), 1)


def test_the_memory_of_a_loaded_model_is_not_asked_for_twice(tiny, measured, monkeypatch):
    """Engines with little memory to spare got flash attention."""
    measured(*STANDARD)
    with Model(tiny) as model:
        needed = estimate_memory(model.header, replace(LAPTOP, flash_attention=False))
    left = needed.total_bytes - needed.program_bytes
    monkeypatch.setattr(memory_estimate, "reserved_bytes", lambda _: 0)
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: left)

    class Loading(Model):
        def __init__(self, *args, **options):
            nonlocal left
            super().__init__(*args, **options)
            left -= needed.vocabulary_bytes

    monkeypatch.setattr(engine_module, "Model", Loading)
    with Engine(tiny, threads=1) as engine:
        assert engine.profile.flash_attention is False
    with Engine(tiny, threads=1) as engine:
        assert engine.profile.flash_attention is True  # now there is less


def test_a_header_without_a_shape_is_refused(model):
    fields = {key: field for key, field in model.header.fields.items() if "head_count" not in key}
    with pytest.raises(ModelFileError, match="head_count"):
        known_attention(LAPTOP, replace(model.header, fields=fields), 1)


def test_standard_attention_cannot_read_a_quantized_cache(tiny):
    with pytest.raises(RequestError, match="kv q8_0 needs flash attention"):
        Engine(tiny, kv="q8_0", flash_attention=False)


def test_every_way_gives_the_exact_logits_within_its_rounding(smollm2):
    tokens = tuple(range(1000, 1300))
    ways = ({"exact": True}, {"flash_attention": True}, {"flash_attention": False}, {"kv": "bf16"})
    logprobs = []
    with Model(smollm2) as model:
        for way in ways:
            with Context(model, ContextParams(300, 1, 300, 1, outputs=1, **way)) as context:
                (row,) = context.decode([Span(0, 0, tokens, rows=1)])
                logprobs.append(log_softmax(context.logits_row(row), np.float64))
    exact, *others = logprobs
    for other in others:
        assert 1e-12 < np.sum(np.exp(exact) * (exact - other)) < 1e-2


def test_an_engine_uses_what_was_chosen_or_given(tiny, measured):
    measured(*STANDARD)
    with Engine(tiny, threads=1) as chosen, Engine(tiny, threads=1, flash_attention=True) as given:
        assert chosen.profile.flash_attention is False and given.profile.flash_attention is True
        assert chosen.answer("1 + 1?", max_tokens=8).text == given.answer("1 + 1?", max_tokens=8).text
