"""The score by contrast: the tree of solutions, the credit of tokens, clip, divergence; on real engines."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from thirteen.convert.adapter.basis import BasisOrigin, make_basis
from thirteen.convert.adapter.candidate_lora import CandidateLora
from thirteen.convert.pipeline import convert
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import RequestError, ThirteenError
from thirteen.learn.cma_search import SearchSettings
from thirteen.learn.contrast import ContrastSettings, make_contrast
from thirteen.learn.contrast_objective import ContrastObjective, ContrastOptions, rollout_settings
from thirteen.learn.objective import AnswerSettings
from thirteen.learn.rollouts import QuestionRollouts, RolloutFile, Solution, read_rollouts
from thirteen.learn.tune import EngineSettings, TuneData, TuneJob, tune_adapter
from thirteen.models.rows import TrainingRow
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.logits import sampling_logprobs
from thirteen.runtime.request import FULL_DISTRIBUTION, Sampling

PROMPT, END = (90, 91), (99,)
SETTINGS = ContrastSettings()


def rollouts(*solutions, number=0, prompt_tokens=2):
    """Solutions as (tokens, right); those that end with 0 reached the limit of tokens."""
    found = tuple(
        Solution(tuple(t for t in tokens if t), tokens[-1] != 0, right) for tokens, right in solutions
    )
    return QuestionRollouts(number, f"question {number}", "1", prompt_tokens, found)


def contrast(*solutions, branch_tokens=64, mask=lambda tokens: [True] * len(tokens)):
    return make_contrast(PROMPT, rollouts(*solutions), END, mask, branch_tokens)


def credits(found):
    """Credit by text (without the prompt) and next token, where solutions part."""
    values = iter(zip(found.credit, found.weight, strict=True))
    table = {}
    for text, tokens in found.branches:
        for token in tokens:
            credit, weight = next(values)
            if weight:
                table[text[len(PROMPT) :], token] = (pytest.approx(credit), weight)
    return table


def test_tokens_have_credit_where_right_and_wrong_solutions_part():
    """After 1 2 half are right: 3 leads to two right ones of three, 4 to none. Then 5 and 6 part."""
    found = contrast(
        ([1, 2, 3, 5], True), ([1, 2, 3, 5, 7], True), ([1, 2, 3, 6], False), ([1, 2, 4, 8], False)
    )
    spread = 0.5
    assert credits(found) == {
        ((1, 2), 3): ((2 / 3 - 1 / 2) / spread, 3),
        ((1, 2), 4): (-1 / 2 / spread, 1),
        ((1, 2, 3), 5): ((1 - 2 / 3) / spread, 2),
        ((1, 2, 3), 6): (-2 / 3 / spread, 1),
    }
    assert found.longest == 5 and found.tokens == 5
    assert (found.credit * found.weight).sum() == pytest.approx(0)


def test_an_end_is_a_token_and_a_solution_that_was_cut_short_has_none():
    found = contrast(([1, 2], True), ([1, 2, 3, 0], False), ([1, 0], False))
    assert credits(found).keys() == {((1,), 2), ((1, 2), 99), ((1, 2), 3)}


def test_branches_are_in_the_order_of_a_walk_and_anchors_lie_on_the_way():
    found = contrast(
        ([1, 2, 3, 4, 5, 6], True),
        ([1, 2, 3, 4, 5, 7], False),
        ([1, 8, 8, 8, 9], True),
        ([1, 8, 8, 8, 6], False),
    )
    texts = [text[2:] for text, _ in found.branches]
    assert texts.index((1, 2, 3, 4, 5)) < texts.index((1, 8, 8, 8))
    anchors = [
        text[2:] for (text, tokens), w in zip(found.branches, split(found), strict=True) if not w.any()
    ]
    assert anchors == [(1,), (1, 2, 3, 4)]  # 2 and 8 after 1 have no credit: half of both are right
    assert len(texts) == len(set(texts))
    inserted = contrast(
        ([1, 2, 3, 4, 5, 6], True),
        ([1, 2, 3, 4, 5, 7], False),
        mask=lambda tokens: [n == 0 for n in range(9)],
    )
    assert len(inserted.branches) == 1  # nothing on the way was sampled


def split(found):
    ends = np.cumsum([len(tokens) for _, tokens in found.branches])[:-1]
    return np.split(found.weight, ends)


def test_the_branches_with_the_most_credit_come_first():
    solutions = [([1] * 50 + [n], right) for n, right in ((2, True), (3, False))]
    early = [([5, 6], True), ([5, 7], False), ([5, 8], False)]
    everything = contrast(*solutions, *early)
    assert {text for text, _ in credits(everything)} == {(), (5,), (1,) * 50}
    few = contrast(*solutions, *early, branch_tokens=1)
    assert {text for text, _ in credits(few)} == {(), (5,)}
    only = contrast(*solutions, branch_tokens=1)
    assert {text for text, _ in credits(only)} == {(1,) * 50}  # at least one


def test_solutions_that_no_token_tells_apart_have_no_contrast():
    assert make_contrast(PROMPT, rollouts(([1], True), ([1], False)), (), lambda t: [True] * 9, 9) is None


def score(found, change, settings=SETTINGS, base=0.0):
    zero = np.full(len(found.credit), -1.0)
    moved = np.array([change.get(token, 0.0) for _, tokens in found.branches for token in tokens])
    return found.score(zero + moved, zero, zero - base, settings)


def test_the_score_rises_with_right_tokens_up_to_the_clip_and_falls_with_wrong_ones():
    found, free = contrast(([1, 2], True), ([1, 3], False)), replace(SETTINGS, kl=0.0)
    assert score(found, {}) == 0
    small, clipped, more = (score(found, {2: change}, free) for change in (0.1, np.log(1.2), 3.0))
    assert 0 < small == pytest.approx((np.exp(0.1) - 1) / 2)
    assert small < clipped == more == pytest.approx(0.2 / 2)
    assert score(found, {3: -5.0}, free) == pytest.approx(0.2 / 2)
    assert score(found, {2: -0.1}, free) == pytest.approx((np.exp(-0.1) - 1) / 2)
    assert score(found, {3: 50.0}, free) == pytest.approx((1 - 3) / 2)  # bounded: no solution dominates
    assert score(found, {2: 3.0}) == pytest.approx(0.1 - 0.1 * 3.0**2 / 2 / 2)
    assert score(found, {2: 3.0}, base=1.0) < score(found, {2: 3.0})


@pytest.mark.parametrize("change", [{"clip": 0.0}, {"clip": 1.0}, {"kl": -0.1}, {"branch_tokens": 0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ThirteenError, match=f"--{next(iter(change)).replace('_', '-')}"):
        ContrastSettings(**change)


V = np.random.default_rng(3).normal(0, 1.0, 13)
ANSWERS = AnswerSettings("contrast", max_tokens=8)


@pytest.fixture(scope="module")
def model(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "qwen2.gguf"
    convert(base("qwen2"), path, quantization="F32")
    return path


@pytest.fixture(scope="module")
def basis(model):
    return make_basis(open_checkpoint(model), BasisOrigin("tiny", "0"))


def write_rollouts(model, path, prompt_tokens=0, count=6):
    """Solutions to real prompts: after "The", "a" is right and "b" is wrong, and some questions are easy."""
    identity = {
        **rollout_settings(model, ANSWERS),
        "questions": count,
        "votes": 3,
        **asdict(replace(FULL_DISTRIBUTION, temperature=0.7)),
        "threads": 64,
    }
    with Engine(model, context=128, threads=1) as engine, RolloutFile(path, identity) as file:
        for number in range(count):
            question = f"What is {number} and {number}?"
            tokens = prompt_tokens or len(engine.request(question).tokens)
            texts = [("The a", True), ("The b", number == 5), ("The bc", number == 5)]
            solutions = tuple(Solution(tuple(text.encode()), True, right) for text, right in texts)
            file.add(QuestionRollouts(number, question, str(2 * number), tokens, solutions))
    return read_rollouts(path, rollout_settings(model, ANSWERS))


@pytest.fixture
def objective(model, basis, tmp_path):
    """Makes the objective on a real engine."""
    with (
        Engine(model, context=128, slots=4, threads=1, batch=256, prefix_bytes=0) as engine,
        CandidateLora(basis, open_checkpoint(model), tmp_path / "candidate.gguf") as lora,
    ):

        def make(rollouts, **options):
            return ContrastObjective(engine, lora, ANSWERS, ContrastOptions(rollouts, **options), tmp_path)

        yield make


def test_a_candidate_that_prefers_right_tokens_scores_higher(objective, model, tmp_path):
    found = write_rollouts(model, tmp_path / "rollouts.jsonl")
    options = ContrastOptions(found)
    assert [row.answer for row in options.rows] == ["0", "2", "4", "6", "8"]  # the last is always right
    made, zero = objective(found), np.zeros(13)
    scores = made.scores([zero, V, -V, V], options.rows, zero)
    assert scores[0] == 0 and scores[1] == scores[3] != scores[2]
    free = objective(found, settings=ContrastSettings(kl=0.0))
    by_token = {}
    for numbers in (V, -V):
        prompt = free.engine.request(options.rows[0].question).tokens
        texts = [[((*prompt, *b"The "), (ord("a"), ord("b")))]]
        with_it = free.engine.next_logprobs(texts, free._load(numbers))[0][0]
        without = free.engine.next_logprobs(texts)[0][0]
        by_token[numbers[0]] = np.array(with_it) - without
    better = max(by_token, key=lambda one: by_token[one][0] - by_token[one][1])
    one = free.scores([V, -V], options.rows[:1], zero)
    assert one[0 if V[0] == better else 1] == max(one)
    assert made.cost.tokens > 0 and made.scores([V], [TrainingRow("unknown", "", "1")], zero) == [0]


def test_probabilities_are_those_at_the_temperature_of_the_rollouts(objective, model, tmp_path):
    """They were those at temperature 1."""
    found = write_rollouts(model, tmp_path / "rollouts.jsonl")
    other = replace(found, sampling=replace(found.sampling, temperature=0.35))
    made, zero = objective(found), np.zeros(13)
    with_it, without = (
        np.concatenate(made._next_logprobs(numbers, list(made._contrasts.values()))) for numbers in (V, zero)
    )
    twice = objective(other)
    halved = np.concatenate(twice._next_logprobs(V, list(twice._contrasts.values())))
    halved -= np.concatenate(twice._next_logprobs(zero, list(twice._contrasts.values())))
    assert np.abs(halved).mean() > 1.5 * np.abs(with_it - without).mean()
    assert ContrastOptions(found).identity != ContrastOptions(other).identity


def test_probabilities_are_those_with_the_cut_offs_of_the_rollouts(objective, model, tmp_path):
    found = write_rollouts(model, tmp_path / "rollouts.jsonl")
    narrow = replace(found, sampling=Sampling(0.7, top_k=2, top_p=1.0, min_p=0.0))
    by_cut_offs = {}
    for one in (found, narrow):
        made = objective(one)
        (contrast, *_) = made._contrasts.values()
        text, tokens = contrast.branches[0]
        logprobs = made._next_logprobs(np.zeros(13), [contrast])[0][: len(tokens)]
        expected = sampling_logprobs(made.engine.logits(text)[-1], tokens, one.sampling)
        assert logprobs == pytest.approx(expected, abs=0.05)
        by_cut_offs[one.sampling] = logprobs
    assert (by_cut_offs[narrow.sampling] > by_cut_offs[found.sampling] + 0.5).all()
    assert ContrastOptions(found).identity != ContrastOptions(narrow).identity


def test_rollouts_of_another_prompt_or_too_long_are_refused(objective, model, tmp_path):
    found = write_rollouts(model, tmp_path / "other.jsonl", prompt_tokens=7)
    with pytest.raises(
        RequestError, match=r"question 0: rollouts with another prompt: it has 7 tokens in the"
    ):
        objective(found)
    made = write_rollouts(model, tmp_path / "rollouts.jsonl")
    long = replace(
        made.questions[0],
        solutions=(Solution((65,) * 120, True, True), Solution((65,) * 120 + (66,), True, False)),
    )
    with pytest.raises(RequestError, match=r"do not fit the context of 128: --context \d+ or fewer --branch"):
        objective(replace(made, questions=(long,)))


def test_fresh_rollouts_are_sampled_once_from_the_mean(objective, model, tmp_path, monkeypatch):
    """A random model is never right, so every third solution is taken for right."""
    found = write_rollouts(model, tmp_path / "rollouts.jsonl")
    turns = iter(range(1000))
    monkeypatch.setattr("thirteen.learn.sample_rollouts.is_correct", lambda answer, row: next(turns) % 3 == 0)
    made = objective(found, rollouts_every=2)
    made.prepare(0, V)
    made.prepare(1, V)
    assert not (tmp_path / "rollouts-2.jsonl").exists()
    made.prepare(2, 0.1 * V)
    fresh = read_rollouts(tmp_path / "rollouts-2.jsonl", rollout_settings(model, ANSWERS))
    assert fresh.identity["numbers"] == (0.1 * V).tolist() and len(fresh.questions) == 5
    assert fresh.identity["votes"] == 3 and "threads" not in fresh.identity  # those of the base's rollouts
    scores = made.scores([0.1 * V, V], ContrastOptions(found).rows, V)
    resumed = objective(found, rollouts_every=2)
    monkeypatch.setattr(resumed, "_sample_block", None)  # the file is read
    resumed.prepare(3, V)
    assert resumed.scores([0.1 * V, V], ContrastOptions(found).rows, V) == scores
    kept = objective(found, rollouts_every=2, settings=ContrastSettings(kl=0.0))
    monkeypatch.setattr(kept, "_sample_block", None)
    kept.prepare(3, V)
    assert kept.scores([0.1 * V], ContrastOptions(found).rows, V) == [0]  # the model that sampled them
    with pytest.raises(RequestError, match=r"rollouts-2.jsonl: rollouts of a search's mean, not of the base"):
        ContrastOptions(fresh)


def test_a_search_goes_on_where_fresh_rollouts_have_one_outcome_only(objective, model, tmp_path):
    """A random model is never right: the rollouts of the base stay in use, and a resumed run ends alike."""
    found = write_rollouts(model, tmp_path / "rollouts.jsonl")
    made, rows = objective(found, rollouts_every=2), ContrastOptions(found).rows
    before = made.scores([V], rows, V)
    made.prepare(2, V)
    assert made.scores([V], rows, V) == before and before != [0]
    lines = (tmp_path / "rollouts-2.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rollouts-2.jsonl").write_text("".join(lines[:3]))  # as after a kill
    resumed = objective(found, rollouts_every=2)
    resumed.prepare(2, V)
    assert (tmp_path / "rollouts-2.jsonl").read_text().splitlines(keepends=True) == lines
    header = json.loads(lines[0])
    for numbers in ({"a": 1}, [[1.0], []], [0.5], None):
        header["rollouts"]["numbers"] = numbers
        (tmp_path / "rollouts-2.jsonl").write_text(json.dumps(header) + "\n")
        with pytest.raises(RequestError, match="line 1: not the 13 numbers that sampled these rollouts"):
            objective(found, rollouts_every=2).prepare(3, V)


def test_a_resumed_run_goes_back_to_the_newest_fresh_rollouts_with_a_contrast(
    objective, model, tmp_path, monkeypatch
):
    """It went back to the base's if the newest had no contrast, and sampled lost ones from another mean."""
    found = write_rollouts(model, tmp_path / "rollouts.jsonl")
    rows, turns = ContrastOptions(found).rows, iter(range(1000))
    judged = "thirteen.learn.sample_rollouts.is_correct"
    made = objective(found, rollouts_every=2)
    monkeypatch.setattr(judged, lambda answer, row: next(turns) % 3 == 0)
    made.prepare(2, 0.1 * V)
    monkeypatch.setattr(judged, lambda answer, row: False)
    made.prepare(4, 0.2 * V)
    scores = made.scores([0.1 * V, V], rows, 0.2 * V)
    for generation, mean in ((4, 0.2 * V), (5, V)):
        resumed = objective(found, rollouts_every=2)
        monkeypatch.setattr(resumed, "_sample_block", None)  # the files are read
        resumed.prepare(generation, mean)
        assert resumed.scores([0.1 * V, V], rows, mean) == scores
    for lost, generation in ((2, 4), (2, 5), (4, 5)):
        path = tmp_path / f"rollouts-{lost}.jsonl"
        kept = path.rename(tmp_path / "kept")
        with pytest.raises(RequestError, match=f"rollouts-{lost}.jsonl: missing: the run cannot resume"):
            objective(found, rollouts_every=2).prepare(generation, 0.2 * V)
        kept.rename(path)


def test_a_run_by_contrast_improves_the_score_and_resumes(model, basis, tmp_path):
    found = write_rollouts(model, tmp_path / "rollouts.jsonl")
    options = ContrastOptions(found)
    rows = [TrainingRow(f"How much is {n}?", "", str(n)) for n in range(8)]
    job = TuneJob(
        model,
        basis,
        TuneData(options.rows, rows[:4], rows[4:], questions=4),
        tmp_path / "out",
        SearchSettings(generations=6, population=6, check_every=3, seed=3, sigma=0.2),
        ANSWERS,
        EngineSettings(1, 4, 128),
        contrast=options,
    )
    events = []
    result = tune_adapter(job, events.append)
    assert result.search.generation == 6
    assert np.mean(events[5].record.scores) > np.mean(events[0].record.scores)
    assert tune_adapter(job).cost.swaps == 0
    other = replace(job, contrast=replace(options, settings=ContrastSettings(kl=0.2)))
    with pytest.raises(ThirteenError, match=r"another run: kl is 0.1 in the file, 0.2 now"):
        tune_adapter(other)
    with pytest.raises(ThirteenError, match="--score contrast and --rollouts FILE require each other"):
        replace(job, contrast=None)
    with pytest.raises(ThirteenError, match="--rollouts-every -1"):
        ContrastOptions(found, rollouts_every=-1)
    measured = replace(job, measure_sigma=True, search=replace(job.search, generations=1))
    sigmas = [
        tune_adapter(one).search.settings.sigma
        for one in (
            replace(measured, out=tmp_path / "by-contrast"),
            replace(measured, out=tmp_path / "exact", answers=replace(ANSWERS, score="exact"), contrast=None),
        )
    ]
    assert sigmas[0] < 0.7 * sigmas[1]  # 0.01 nats instead of 0.1
    for votes in ("8", None):
        damaged = replace(found, identity={**found.identity, "votes": votes})
        with pytest.raises(RequestError, match=r"rollouts.jsonl: line 1: votes must be an integer"):
            ContrastOptions(damaged, rollouts_every=3)
