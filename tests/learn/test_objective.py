"""The objective on a real engine: candidates, log-likelihoods, scores, and a short run."""

from dataclasses import replace

import numpy as np
import pytest
from thirteen.convert.adapter.basis import BasisOrigin, make_basis
from thirteen.convert.adapter.candidate_lora import CandidateLora
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.adapter.tinylora_folder import write_tinylora_folder
from thirteen.convert.pipeline import convert
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import AdapterError, RequestError, ThirteenError
from thirteen.learn import objective as objective_module
from thirteen.learn.cma_search import SearchSettings
from thirteen.learn.objective import AnswerSettings, EngineObjective, initial_sigma, is_correct
from thirteen.learn.tune import EngineSettings, TuneData, TuneJob, tune_adapter
from thirteen.models.rows import TrainingRow
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Request, StopReason

from ..runtime.fixed_settings import FIXED

V = np.random.default_rng(3).normal(0, 1.0, 13)
ROWS = [TrainingRow(f"What is {n} and {n}?", f"{n} + {n} = {2 * n}", str(2 * n)) for n in range(2, 26)]
OPTIONS = FIXED | {"context": 128, "slots": 4, "batch": 256, "prefix_bytes": 0}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request, base, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    convert(base(request.param), path, quantization="F32")
    return path


@pytest.fixture(scope="module")
def basis(model):
    return make_basis(open_checkpoint(model), BasisOrigin("tiny", "0"))


@pytest.fixture
def engine(model):
    with Engine(model, **OPTIONS) as engine:
        yield engine


def test_a_candidate_equals_its_exported_folder(model, basis, tmp_path):
    """Rows of q and k in the wrong order would be another, plausible adapter."""
    write_tinylora_folder(basis, V.astype(np.float32), tmp_path / "folder", "tiny")
    export_adapter(tmp_path / "folder", model, tmp_path / "exported.gguf")
    with CandidateLora(basis, open_checkpoint(model), tmp_path / "candidate.gguf") as file:
        file.write(np.ones(13, np.float32))
        file.write(V.astype(np.float32))
        prompt = tuple(b"Why is the sky blue?")
        with Engine(model, adapter=tmp_path / "exported.gguf", **OPTIONS) as engine:
            expected = engine.logits(prompt)
        with Engine(model, adapter=file.path, **OPTIONS) as engine:
            assert np.allclose(engine.logits(prompt), expected, atol=1e-4)
        with Engine(model, **OPTIONS) as engine:
            assert not np.allclose(engine.logits(prompt), expected, atol=1e-2)
    assert not (tmp_path / "candidate.gguf").exists()


def test_a_basis_of_another_shape_is_refused(basis, smollm2_path, tmp_path):
    with pytest.raises(AdapterError, match=r"the basis is of tiny: its 'model.layers.0.self_attn.q_proj'"):
        CandidateLora(basis, open_checkpoint(smollm2_path), tmp_path / "candidate.gguf")


@pytest.fixture(scope="module")
def smollm2_path():
    from thirteen.models.embedded import embedded

    return embedded()


LENGTHS = ((1, 1), (20, 3), (5, 60), (100, 28), (3, 9), (7, 2), (19, 4), (1, 120))


@pytest.mark.parametrize("shared", [0, 16, 40], ids=lambda shared: f"{shared} shared")
def test_log_likelihoods_follow_from_the_logits(engine, shared):
    """Batches mix lengths, a long pair has its own batch, and a common prefix is computed once."""
    random = np.random.default_rng(5)
    begin = random.integers(0, 250, shared).tolist()
    pairs = [
        ([*begin, *random.integers(0, 250, before).tolist()], random.integers(0, 250, after).tolist())
        for before, after in LENGTHS
        if shared + before + after <= 128
    ]
    for (before, after), found in zip(pairs, engine.log_likelihoods(pairs), strict=True):
        logits = engine.logits([*before, *after])[len(before) - 1 : -1].astype(np.float64)
        peak = logits.max(axis=1)
        logprobs = (
            logits[range(len(after)), after] - peak - np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        )
        assert found == pytest.approx(logprobs.tolist(), abs=0.05)  # keys in float16


@pytest.mark.parametrize("pair", [([], [1]), ([1], []), ([1] * 100, [1] * 30), ([1], [9999])])
def test_invalid_pairs_are_refused(engine, pair):
    with pytest.raises(RequestError):
        engine.log_likelihoods([pair])
    assert engine.log_likelihoods([([1], [2])])  # the engine is still usable


def test_a_swapped_adapter_is_used_at_once(engine, basis, model, tmp_path):
    with CandidateLora(basis, open_checkpoint(model), tmp_path / "candidate.gguf") as file:
        outputs = []
        for numbers in (V, -V, V):
            file.write(numbers.astype(np.float32))
            engine.swap("candidate", file.path)
            handle = engine.submit(Request(tuple(b"Why?"), 8, adapter="candidate", ignore_end=True))
            tokens = tuple(token for piece in handle for token in piece.tokens)
            outputs.append((tokens, engine.log_likelihoods([(list(b"Why?"), list(b"Because"))], "candidate")))
    assert outputs[0] == outputs[2] != outputs[1]
    assert outputs[0][1] != engine.log_likelihoods([(list(b"Why?"), list(b"Because"))])


def test_a_swap_that_would_mix_adapters_is_refused(model, basis, tmp_path):
    with CandidateLora(basis, open_checkpoint(model), tmp_path / "candidate.gguf") as file:
        with Engine(model, **{**OPTIONS, "prefix_bytes": 1 << 20}) as engine:
            engine.swap("candidate", file.path)  # nothing in the prefix cache is of this name
            with pytest.raises(RequestError, match=r"swap: 'candidate' .* must be new"):
                engine.swap("candidate", file.path)
        with Engine(model, **OPTIONS) as engine:
            with pytest.raises(RequestError, match="swap: 'base'"):
                engine.swap("base", file.path)
            handle = engine.submit(Request(tuple(b"Why?"), 100, ignore_end=True))
            with pytest.raises(RequestError, match="1 requests are running"):
                engine.swap("candidate", file.path)
            handle.abort()


@pytest.fixture
def objective(engine, basis, model, tmp_path):
    with CandidateLora(basis, open_checkpoint(model), tmp_path / "candidate.gguf") as file:
        yield EngineObjective(engine, file, AnswerSettings(max_tokens=8))


def test_the_reference_score_is_on_sampled_tokens_only(engine, objective):
    """Tokens that the calculator inserts do not count."""
    (score,) = objective.scores([np.zeros(13)], ROWS[:2])
    expected = []
    for row in ROWS[:2]:
        after = [*engine.model.tokenize(row.solution, special=False, bos=False), engine.model.eos]
        (logprobs,) = engine.log_likelihoods([(engine.request(row.question).tokens, after)])
        sum_ = row.solution.partition("=")[0] + "="
        own = len(engine.model.tokenize(sum_, special=False, bos=False))
        expected.append(np.mean([*logprobs[:own], logprobs[-1]]))
    assert score == pytest.approx(np.mean(expected), rel=1e-3)


def test_a_score_is_reproducible(objective):
    first, second, again = objective.scores([V, -V, V], ROWS[:6])
    assert first == again != second
    assert objective.cost.swaps == 3 and objective.cost.tokens > 0


def test_a_truncated_answer_is_not_correct(engine):
    """The calculator completes the random model's answer, so that it has a number."""
    answer = engine.answer("Say 1.", max_tokens=4)
    assert answer.stop_reason == "length"
    ended = replace(answer, value="14", stop_reason=StopReason.END)
    row = TrainingRow("Say 1.", "", "14")
    assert is_correct(ended, row) and not is_correct(replace(ended, stop_reason=StopReason.LENGTH), row)
    assert not is_correct(replace(ended, value=None), row) and not is_correct(replace(ended, value="1"), row)


def test_rows_that_do_not_fit_are_refused_before_the_search(objective):
    objective.check_lengths([*ROWS, TrainingRow("What is 1 and 1?", "", "2")])
    long = TrainingRow("What is 1 and 1?", "1 + 1 = 2. " * 20, "2")
    with pytest.raises(
        RequestError, match=r"question 'What is 1 and 1\?': \d+ tokens do not fit the context of"
    ):
        objective.check_lengths([*ROWS, long])
    with pytest.raises(RequestError, match=r"do not fit the context of 128: --context \d+"):
        objective.check_lengths([TrainingRow("a" * 130, "", "2")])


def test_a_model_that_says_nothing_needs_a_sigma(objective, monkeypatch):
    monkeypatch.setattr(objective_module, "_output_tokens", lambda handle: [])
    with pytest.raises(ThirteenError, match="ends its answers to 8 questions at once: give --sigma"):
        initial_sigma(objective, ROWS[:8], numbers=13, seed=1)


def test_the_initial_sigma_grows_with_the_root_of_the_target(objective):
    small, large = (
        initial_sigma(objective, ROWS[:8], numbers=13, seed=1, target_kl=target) for target in (0.001, 0.1)
    )
    assert 3 < large / small < 30  # ten times, where the divergence is a square


def test_a_run_improves_the_score_and_saves_the_adapter(model, basis, tmp_path):
    """A tiny random model is never right, so the result is the base itself."""
    out = tmp_path / "out"
    events = []
    job = TuneJob(
        model,
        basis,
        TuneData(ROWS[:12], ROWS[12:16], ROWS[16:], questions=12),
        out,
        SearchSettings(generations=8, population=8, check_every=2, seed=3),
        AnswerSettings(max_tokens=8),
        EngineSettings(1, 4, 128),
        measure_sigma=True,
    )
    result = tune_adapter(job, events.append)
    assert result.search.generation == 8 and not result.improved and result.questions == 8 * 8 * 12
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "generations.jsonl",
        "held-out.jsonl",
    ]
    again = tune_adapter(job, events.append)
    assert again.search.generation == 8 and again.search.settings == result.search.settings
    assert np.array_equal(again.best.numbers, result.best.numbers)
    assert again.cost.swaps == 0  # everything was in the journal, including sigma
    first, last = (np.mean(event.record.scores) for event in (events[0], events[7]))
    assert last > first
