"""The natural policy gradient on rollouts of a tiny Llama, with PEFT as the oracle of the gradients."""

import json
from dataclasses import replace

import numpy as np
import pytest
from thirteen.convert.adapter.adapter import adapter_sha256
from thirteen.convert.adapter.basis import Basis, BasisOrigin, make_basis
from thirteen.convert.adapter.tinylora_folder import read_tinylora_numbers
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import AdapterError, RequestError, ThirteenError
from thirteen.learn import npg, solution_scores
from thirteen.learn.base_model import attach_adapter, load_base_model
from thirteen.learn.cards import npg_card
from thirteen.learn.examples import encode_sampled, row_losses
from thirteen.learn.job import ScoreState, TrainCheckpoint, TrainingJob
from thirteen.learn.npg import train_npg
from thirteen.learn.recipe import RECIPES
from thirteen.learn.rollouts import read_advantage_rows

from .test_rollout_rows import write

OUTCOMES = ("10", "1000", "1110", "11", "00", *["10"] * 9)
NUMBERS = 8


@pytest.fixture(scope="module")
def basis(base) -> Basis:
    checkpoint = open_checkpoint(base("llama"))
    return make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256(), numbers=NUMBERS, groups=2))


@pytest.fixture(scope="module")
def sampled(loaded, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("rollouts") / "file", loaded[1], outcomes=OUTCOMES)
    return read_advantage_rows(path)


@pytest.fixture
def job(base, basis, tmp_path) -> TrainingJob:
    recipe = replace(RECIPES["tinylora"], numbers=NUMBERS, threads=1)
    return TrainingJob(base("llama"), tmp_path / "adapter", recipe, basis, "some/base")


def test_advantages_are_the_outcome_less_that_of_the_others(sampled):
    weights = {}
    for row in sampled.rows:
        weights.setdefault(row.question, []).append(row.weight)
    assert (len(weights), sampled.questions) == (12, 14)  # two are always or never right
    assert weights["What is 0 and 0?"] == [0.5, -0.5]
    assert weights["What is 1 and 1?"] == pytest.approx([1 / 4, -1 / 12, -1 / 12, -1 / 12])


def test_a_solution_that_was_cut_off_is_wrong_and_has_no_end(loaded, tmp_path):
    """The gradient is that of a right solution within the limit: to end in time is part of it."""
    path = write(tmp_path / "file", loaded[1], outcomes=OUTCOMES)
    path.write_text(
        path.read_text().replace('"ended": true, "right": false', '"ended": false, "right": false', 1)
    )
    found = read_advantage_rows(path)
    right, wrong = (row for row in found.rows if row.question == "What is 0 and 0?")
    assert (right.weight, wrong.weight, found.questions, found.calculator) == (0.5, -0.5, 14, False)
    end = loaded[1].eos_token_id
    assert encode_sampled(loaded[1], right).ids[-2:] == [right.tokens[-1], end]
    assert encode_sampled(loaded[1], wrong).ids[-1] == wrong.tokens[-1] != end


def test_a_question_that_was_asked_again_counts_once(loaded, tmp_path):
    """Each time it was a full estimate of the question's gradient."""
    path = write(tmp_path / "file", loaded[1], outcomes=OUTCOMES)
    path.write_text(path.read_text().replace("What is 5 and 5?", "What is 0 and 0?"))
    found = read_advantage_rows(path)
    weights = [row.weight for row in found.rows if row.question == "What is 0 and 0?"]
    assert weights == pytest.approx([1 / 6, -1 / 6] * 2) and found.questions == 13


def test_the_scores_are_those_of_the_peft_adapter(base, basis, sampled, job):
    import torch

    model, tokenizer = load_base_model(base("llama"))
    examples = [encode_sampled(tokenizer, row) for row in sampled.rows[:7]]
    found = solution_scores.solution_scores(model, basis, examples, batch_rows=3)
    rounded = solution_scores.solution_scores(model, basis, examples, batch_rows=3, bf16=True)
    attach_adapter(model, job.recipe, basis)
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = [torch.autograd.grad(-row_losses(model, [example]).sum(), trained) for example in examples]
    expected = np.array([torch.cat([g.flatten() for g in gradients]).numpy() for gradients in expected])
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5 * np.abs(expected).max())
    assert (rounded * expected).sum() / np.linalg.norm(rounded) / np.linalg.norm(expected) > 0.99


def test_the_gradient_is_that_at_the_temperature_of_the_samples(base, basis, loaded, tmp_path):
    """It was that at temperature 1. At 0.5 the logits are twice as large."""
    import torch

    sampled = read_advantage_rows(write(tmp_path / "file", loaded[1], outcomes=OUTCOMES, temperature=0.5))
    model, tokenizer = load_base_model(base("llama"))
    examples = [encode_sampled(tokenizer, row) for row in sampled.rows[:2]]
    found = solution_scores.solution_scores(model, basis, examples, temperature=sampled.temperature)
    at_one = solution_scores.solution_scores(model, basis, examples)
    output = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(2 * output.weight, requires_grad=False)
    expected = solution_scores.solution_scores(model, basis, examples)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5 * np.abs(expected).max())
    assert np.abs(at_one - expected).max() > 0.1 * np.abs(expected).max()


def test_the_scores_at_other_numbers_are_those_of_the_peft_adapter_there(base, basis, sampled, job):
    import torch

    numbers = np.linspace(-0.5, 1, NUMBERS, dtype=np.float32)
    model, tokenizer = load_base_model(base("llama"))
    examples = [encode_sampled(tokenizer, row) for row in sampled.rows[:4]]
    adapted = attach_adapter(load_base_model(base("llama"))[0], job.recipe, basis)
    (trained,) = (p for p in adapted.parameters() if p.requires_grad)

    def gradients():
        found = (torch.autograd.grad(-row_losses(adapted, [one]).sum(), trained)[0] for one in examples)
        return torch.stack(list(found)).numpy()

    at_zero = gradients()
    trained.data.copy_(torch.from_numpy(numbers))
    expected, scale = gradients(), np.abs(at_zero).max()
    found = solution_scores.solution_scores(model, basis, examples, start=numbers)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * scale)
    assert np.abs(at_zero - expected).max() > 0.01 * scale


def test_right_solutions_become_likelier_than_wrong_ones(job, sampled):
    """By as much as the divergence says: a solution's log-ratio has the mean square 2 * KL."""
    import torch
    from peft import PeftModel

    rows, kl = sampled.rows, 1e-4
    result = train_npg(job, sampled, kl)
    assert (result.trained_numbers, result.questions, result.solutions) == (NUMBERS, 14, len(rows))
    model, tokenizer = load_base_model(job.base)
    examples = [encode_sampled(tokenizer, row) for row in rows]
    with torch.no_grad():
        before = row_losses(model, examples).numpy()
        after = row_losses(PeftModel.from_pretrained(model, job.out).base_model.model, examples).numpy()
    assert ((before - after) * [row.weight for row in rows]).sum() > 0
    expected = 2 * kl * np.mean([example.answer_tokens for example in examples])
    assert ((before - after) ** 2).mean() == pytest.approx(expected, rel=0.1)


def test_another_divergence_uses_the_gradients_of_the_first_run(job, sampled, monkeypatch):
    from safetensors.numpy import load_file

    vectors = []
    for kl in (0.01, 0.04):
        train_npg(job, sampled, kl)
        vectors.append(load_file(job.out / "adapter_model.safetensors")["base_model.tinylora_v.0"])
        monkeypatch.delattr(solution_scores, "row_losses", raising=False)
    assert vectors[1] == pytest.approx(2 * vectors[0], rel=1e-5)


def test_a_run_resumes_on_another_day(job, dated, tmp_path, monkeypatch):
    """With the date in its prompts, it was taken for another run."""
    job = replace(job, base=dated)
    rollouts = write(tmp_path / "file", load_base_model(dated)[1], outcomes=OUTCOMES)
    train_npg(job, read_advantage_rows(rollouts), kl=0.01)
    monkeypatch.delattr(solution_scores, "row_losses")
    train_npg(job, read_advantage_rows(rollouts), kl=0.01)


def test_the_scores_over_another_basis_are_not_used(job, sampled):
    """Of one base, with one group: its scores are as many and as long."""
    basis = replace(job.basis, origin=replace(job.basis.origin, groups=1))
    train_npg(replace(job, basis=basis), sampled, kl=0.01)
    other = replace(basis, origin=replace(basis.origin, base_sha256="other"))
    with pytest.raises(ThirteenError, match="checkpoint of a run with another base, basis"):
        train_npg(replace(job, basis=other), sampled, kl=0.01)


def test_a_second_step_starts_from_the_adapter(job, sampled, loaded, tmp_path):
    """Its rollouts must be of that adapter."""
    train_npg(job, sampled, kl=0.01)
    rollouts = write(
        tmp_path / "second",
        loaded[1],
        outcomes=OUTCOMES,
        adapter_sha256="of the GGUF",
        peft_sha256=adapter_sha256(job.out),
    )
    first = read_tinylora_numbers(job.out, job.basis)
    second = replace(job, out=tmp_path / "two")
    result = train_npg(second, read_advantage_rows(rollouts, job.out), kl=1e-8)
    numbers = read_tinylora_numbers(second.out, job.basis)
    assert numbers == pytest.approx(first, abs=0.01 * np.abs(first).max()) and (numbers != first).any()
    assert f"It starts from the adapter {job.out.name}, which" in npg_card(second, result, 1e-8, "", "")
    with pytest.raises(RequestError, match="rollouts with another adapter: peft_sha256 is"):
        read_advantage_rows(rollouts, second.out)
    with pytest.raises(RequestError, match="rollouts with another adapter: adapter_sha256 is"):
        read_advantage_rows(rollouts)


def test_a_resumed_run_gives_the_same_numbers(job, sampled, monkeypatch):
    from safetensors.numpy import load_file

    train_npg(job, sampled, kl=0.01)
    expected = load_file(job.out / "adapter_model.safetensors")
    again = replace(job, out=job.out.with_name("again"), recipe=replace(job.recipe, micro_rows=4))
    passes = []

    def interrupted(*args, **options):
        passes.append(len(args[1]))
        if len(passes) == 4:
            raise KeyboardInterrupt
        return row_losses(*args, **options)

    monkeypatch.setattr(solution_scores, "row_losses", interrupted)
    monkeypatch.setattr(npg, "TrainCheckpoint", lambda *args: TrainCheckpoint(*args, every=2))
    with pytest.raises(KeyboardInterrupt):
        train_npg(again, sampled, kl=0.01)
    train_npg(again, sampled, kl=0.01)
    again_passed = 8  # solutions: the third pass had not been saved, and the fourth had failed
    assert sum(passes) == len(sampled.rows) + again_passed
    found = load_file(again.out / "adapter_model.safetensors")
    assert all(found[name] == pytest.approx(rows, rel=1e-3, abs=1e-6) for name, rows in expected.items())


def test_a_checkpoint_of_another_run_is_refused(job, sampled):
    import torch

    job.out.mkdir()
    path = job.out / ".scores.pt"
    TrainCheckpoint(path, "other", ScoreState).save(ScoreState(torch.zeros(1, NUMBERS)))
    with pytest.raises(ThirteenError, match="checkpoint of a run with another base"):
        train_npg(job, sampled, kl=0.01)


def test_a_gradient_that_is_not_finite_is_not_saved(job, sampled, monkeypatch):
    """Every later run would have failed on it."""
    monkeypatch.setattr(
        solution_scores, "row_losses", lambda *args, **options: np.nan * row_losses(*args, **options)
    )
    with pytest.raises(ThirteenError, match="is not finite: try --no-bf16"):
        train_npg(job, sampled, kl=0.01)
    assert not (job.out / ".scores.pt").exists()


def test_a_basis_that_lacks_modules_is_refused(job, sampled):
    factors = dict(list(job.basis.factors.items())[1:])
    with pytest.raises(AdapterError, match="the basis is of tiny: it lacks the model's"):
        train_npg(replace(job, basis=replace(job.basis, factors=factors)), sampled, kl=0.01)


def test_a_basis_of_another_base_is_refused(base, job, sampled):
    checkpoint = open_checkpoint(base("qwen2"))
    other = make_basis(checkpoint, BasisOrigin("other", checkpoint.sha256(), numbers=NUMBERS))
    with pytest.raises(AdapterError, match="the basis is of other"):
        train_npg(replace(job, basis=other), sampled, kl=0.01)


FLAGS = ("--method", "npg", "--kind", "tinylora", "--threads", 1)


def test_the_command_writes_adapter_and_card(thirteen, base, loaded, tmp_path):
    rollouts = write(tmp_path / "rollouts.jsonl", loaded[1], outcomes=OUTCOMES)
    out = tmp_path / "adapter"
    done = thirteen("train", base("llama"), "--rollouts", rollouts, "-o", out, *FLAGS, "--json")
    assert done.status == 0, done
    facts = json.loads(done.stdout)
    keys = ["output", "trained_numbers", "questions", "solutions", "seconds", "damping", "gain"]
    assert list(facts) == keys and facts["trained_numbers"] == 13 and facts["questions"] == 14
    assert facts["gain"]["low"] <= facts["gain"]["value"] <= facts["gain"]["high"]
    card = (out / "README.md").read_text()
    assert "one step of the natural policy gradient, on" in card and "14 questions were asked" in card
    assert "It starts from the base." in card
    shown = thirteen("adapter", "show", out)
    assert shown.status == 0, shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rollouts {few}", "6 questions have right and wrong solutions; at least 10 are needed"),
        ("--rollouts {adapter}", "rollouts with another adapter"),
        ("--rollouts {file} --kind lora", "--method npg: it is for --kind tinylora"),
        ("--rollouts {file} --max-rows 5", "--max-rows: it is not for --method npg"),
        ("--rollouts {file} --kl nan", "--kl nan: must be from 0.000001 to 1"),
        ("--rollouts {file} --start {out}", "--output {out}: it is the folder of --start"),
        ("--rollouts {file} --start {none}", "none"),
        ("--rollouts {file} --method sft --start {none}", "--start: it is not for --method sft"),
        ("--data {file}", "--method npg takes --rollouts"),
        ("", "give --data or --rollouts"),
    ],
)
def test_what_cannot_be_computed_is_one_line(thirteen, base, loaded, tmp_path, flags, message):
    files = {
        "file": write(tmp_path / "file", loaded[1], outcomes=OUTCOMES),
        "few": write(tmp_path / "few", loaded[1]),
        "adapter": write(tmp_path / "adapter.jsonl", loaded[1], outcomes=OUTCOMES, adapter_sha256="00"),
        "out": tmp_path / "out",
        "none": tmp_path / "none",
    }
    done = thirteen("train", base("llama"), "-o", tmp_path / "out", *FLAGS, *flags.format(**files).split())
    assert done.status == 2 and message.format(**files) in done.stderr, done
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
