"""GRPO with trl on a CPU: rewards, a toy task, and resumption."""

from dataclasses import replace

import pytest
from thirteen.errors import ThirteenError
from thirteen.models.rows import TrainingRow
from thirteen.models.training.grpo import Rollouts, reward, train_grpo
from thirteen.models.training.job import TrainingJob
from thirteen.models.training.recipe import RECIPES


def test_the_reward_is_1_for_a_right_final_answer():
    completions = ["so 3\n#### 4", "It is 5.", "no idea", "#### 1,000"]
    assert reward(completions=completions, answer=["4", "4", "4", "1000"], prompts=[]) == [1.0, 0.0, 0.0, 1.0]


def test_it_learns_the_rewarded_digit(base, tmp_path, capsys):
    """The toy task: a random model must output 7, which is one of its 272 tokens."""
    rows = [TrainingRow(f"Say a number, {n}.", "", "7") for n in range(8)]
    recipe = replace(RECIPES["lora"], rank=4, learning_rate=0.02, threads=1, seed=3)
    rollouts = Rollouts(steps=60, questions=1, completions=64, tokens=2)
    job = TrainingJob(base("llama"), tmp_path / "out", recipe, base_id="tiny")
    result = train_grpo(job, rows, rollouts)
    assert len(result.rewards) == 60 and result.completions == 3_840
    assert result.last_mean() > result.first_mean() + 0.5
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert capsys.readouterr().out == ""  # standard output is for results
    assert result.real_run_hours == pytest.approx(7_473 * 3 * 8 * result.seconds / 3_840 / 3600)


class Killed(Exception):
    pass


def raise_killed(*_):
    raise Killed


def test_a_resumed_run_ends_with_the_same_weights(base, tmp_path):
    rows = [TrainingRow(f"Say a number, {n}.", "", "7") for n in range(8)]
    recipe = replace(RECIPES["lora"], rank=4, learning_rate=0.01, threads=1, seed=3)
    rollouts = Rollouts(steps=13, questions=2, completions=8, tokens=2)

    def run(folder, stop=0, **changed):
        def progress(done, total):
            if done == stop:
                raise Killed

        job = TrainingJob(base("llama"), folder, replace(recipe, **changed))
        return train_grpo(job, rows, rollouts, progress)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    uninterrupted = run(whole)
    with pytest.raises(Killed):
        run(parts, 12)
    with pytest.raises(ThirteenError, match="checkpoint of a run with another base"):
        run(parts, seed=4)
    truncated = parts / ".checkpoints" / "checkpoint-12" / "trainer_state.json"
    truncated.parent.mkdir()
    truncated.write_text('{"global_step": 1')
    resumed = run(parts)
    weights = "adapter_model.safetensors"
    assert (parts / weights).read_bytes() == (whole / weights).read_bytes()
    assert resumed.rewards == uninterrupted.rewards and len(resumed.rewards) == 13
    assert (resumed.completions, uninterrupted.completions) == (3 * 16, 13 * 16)
    assert not (parts / ".checkpoints").exists()


def test_a_run_killed_after_its_last_step_resumes(base, tmp_path, monkeypatch):
    rows, rollouts = (
        [TrainingRow("Say a number.", "", "7")],
        Rollouts(steps=3, questions=1, completions=4, tokens=2),
    )
    recipe = replace(RECIPES["lora"], learning_rate=0.01, threads=1)

    def run(folder):
        return train_grpo(TrainingJob(base("llama"), folder, recipe), rows, rollouts)

    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrainingJob, "save", raise_killed)
        run(tmp_path / "parts")
    resumed = run(tmp_path / "parts")
    assert resumed.rewards == whole.rewards and resumed.real_run_hours is None
    weights = "adapter_model.safetensors"
    assert (tmp_path / "parts" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.parametrize("change", [{"completions": 1}, {"steps": 0}, {"tokens": 0}])
def test_invalid_rollouts_are_refused(change):
    with pytest.raises(ThirteenError, match="grpo: at least 2 completions"):
        Rollouts(**change)
