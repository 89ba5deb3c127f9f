"""GRPO with trl on a CPU: rewards, a toy task, and resumption."""

import json
import shutil
from dataclasses import replace

import pytest
from thirteen.errors import ThirteenError
from thirteen.learn import grpo
from thirteen.learn.examples import prompt_text
from thirteen.learn.grpo import GrpoSettings, make_reward, train_grpo, trl_prompt
from thirteen.learn.job import TrainingJob
from thirteen.learn.recipe import RECIPES
from thirteen.models.rows import TrainingRow

END = 258  # the tokenizer's end token


@pytest.fixture(scope="module")
def toy(base, tmp_path_factory):
    """A base that ends a completion with any token: a random model would hardly ever end one with END."""
    folder = shutil.copytree(base("llama"), tmp_path_factory.mktemp("toy") / "base")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": list(range(272))}))
    return folder


def test_the_reward_is_1_for_a_right_final_answer():
    reward = make_reward({END})
    completions = ["so 3\n#### 4", "It is 5.", "no idea", "#### 1,000"]
    answers = ["4", "4", "4", "1000"]
    ended = [[20, END]] * 4
    assert reward(completions, ended, answer=answers, prompts=[]) == [1.0, 0.0, 0.0, 1.0]


def test_a_completion_that_was_cut_off_is_not_rewarded():
    """It learned to be cut off after the answer, where the runtime would have gone on to another."""
    assert make_reward({END, 5})(["#### 4"] * 3, [[20, END], [20, 21], [5]], ["4"] * 3) == [1.0, 0.0, 1.0]


def test_what_trl_cuts_off_is_not_rewarded(base, tmp_path, monkeypatch):
    """Whatever the text: a random model hardly ever ends with one of 272 tokens."""
    monkeypatch.setattr(grpo, "has_final_answer", lambda *_: True)
    rows, settings = [TrainingRow("How?", "", "7")], GrpoSettings(2, questions=1, completions=32, tokens=1)
    job = TrainingJob(base("llama"), tmp_path / "out", replace(RECIPES["lora"], threads=1))
    assert max(train_grpo(job, rows, settings).rewards) < 0.2


def test_it_learns_the_rewarded_digit(toy, tmp_path, capsys):
    """The toy task: a random model must output 7, which is one of its 272 tokens."""
    rows = [TrainingRow(f"Say a number, {n}.", "", "7") for n in range(8)]
    recipe = replace(RECIPES["lora"], rank=4, learning_rate=0.02, threads=1, seed=3)
    settings = GrpoSettings(steps=60, questions=1, completions=64, tokens=1)
    job = TrainingJob(toy, tmp_path / "out", recipe, base_id="tiny")
    result = train_grpo(job, rows, settings)
    assert len(result.rewards) == 60 and result.completions == 3_840
    assert result.last_mean > result.first_mean + 0.5
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert capsys.readouterr().out == ""  # standard output is for results
    assert result.real_run_hours == pytest.approx(7_473 * 3 * 8 * result.seconds / 3_840 / 3600)


def test_fewer_rows_than_questions_are_refused_before_anything_is_loaded(tmp_path):
    """Nothing was trained, the adapter was saved, and the mean of no rewards divided by zero."""
    job = TrainingJob(tmp_path / "nowhere", tmp_path / "out", RECIPES["lora"])
    with pytest.raises(ThirteenError, match="--questions 4: more than the 1 rows"):
        train_grpo(job, [TrainingRow("Say a number.", "", "7")], GrpoSettings(questions=4))
    assert not job.out.exists()


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_prompt_begins_with_one_begin_of_text_token(base, tmp_path, adds_bos):
    """Llama 3's template and its tokenizer, which trl calls with special tokens, both gave one."""
    from tokenizers import Tokenizer, processors
    from transformers import AutoTokenizer

    folder = shutil.copytree(base("llama"), tmp_path / "base")
    if adds_bos:
        fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        bos = "<|endoftext|>"
        fast.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, fast.token_to_id(bos))]
        )
        fast.save(str(folder / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    expected = tokenizer(prompt_text(tokenizer, "How many?"), add_special_tokens=False).input_ids
    assert tokenizer(trl_prompt(tokenizer, "How many?")).input_ids == expected
    assert expected.count(tokenizer.bos_token_id) == 1


class Killed(Exception):
    pass


def raise_killed(*_):
    raise Killed


def test_a_resumed_run_ends_with_the_same_weights(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "has_final_answer", lambda text, _: text.isascii())  # about every second time
    rows = [TrainingRow(f"Say a number, {n}.", "", "7") for n in range(8)]
    recipe = replace(RECIPES["lora"], rank=4, learning_rate=0.01, threads=1, seed=3)
    settings = GrpoSettings(steps=13, questions=2, completions=8, tokens=2)

    def run(folder, stop=0, **changed):
        def progress(done, total):
            if done == stop:
                raise Killed

        job = TrainingJob(toy, folder, replace(recipe, **changed))
        return train_grpo(job, rows, settings, progress)

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
    assert 0 < sum(resumed.rewards) < 13  # so there was something to learn
    assert (resumed.completions, uninterrupted.completions) == (3 * 16, 13 * 16)
    assert not (parts / ".checkpoints").exists()


def test_a_run_killed_after_its_last_step_resumes(toy, tmp_path, monkeypatch):
    rows, settings = (
        [TrainingRow("Say a number.", "", "7")],
        GrpoSettings(steps=3, questions=1, completions=4, tokens=2),
    )
    recipe = replace(RECIPES["lora"], learning_rate=0.01, threads=1)

    def run(folder):
        return train_grpo(TrainingJob(toy, folder, recipe), rows, settings)

    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrainingJob, "save", raise_killed)
        run(tmp_path / "parts")
    resumed = run(tmp_path / "parts")
    assert resumed.rewards == whole.rewards and resumed.real_run_hours is None
    weights = "adapter_model.safetensors"
    assert (tmp_path / "parts" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.parametrize("change", [{"completions": 1}, {"steps": 0}, {"tokens": 0}])
def test_invalid_settings_are_refused(change):
    with pytest.raises(ThirteenError, match="grpo: at least 2 completions"):
        GrpoSettings(**change)
