"""Training on rollouts: which solutions are learned, with which weight, and what is refused."""

import json
import re
from dataclasses import asdict, replace

import pytest
from thirteen.errors import CheckpointError
from thirteen.learn.base_model import attach_adapter, load_base_model
from thirteen.learn.examples import encode_sampled, held_out_losses, prompt_text
from thirteen.learn.recipe import RECIPES
from thirteen.learn.rollouts import QuestionRollouts, RolloutFile, SampledRow, Solution, read_rollout_rows
from thirteen.learn.sft import fit_adapter
from thirteen.runtime.request import FULL_DISTRIBUTION

# The outcomes of the solutions to each question: "10" has a right and a wrong one.
OUTCOMES = ("10", "1000", "1110", "11", "00", "10", "10", "10")


def write(path, tokenizer, *, outcomes=OUTCOMES, prompt_tokens=0, **identity):
    """Write a file of rollouts with the base's tokens; `prompt_tokens` are added to the true number."""
    common = {"system": None, "calculator": False, "questions": len(outcomes)} | asdict(FULL_DISTRIBUTION)
    with RolloutFile(path, common | identity) as file:
        for number, rights in enumerate(outcomes):
            question = f"What is {number} and {number}?"
            prompt = tokenizer(prompt_text(tokenizer, question), add_special_tokens=False).input_ids
            solutions = []
            for n, right in enumerate(rights):
                value = 2 * number if right == "1" else 77
                text = f"Answer {n} is {number} + {number} = {value}"
                tokens = tuple(tokenizer(text, add_special_tokens=False).input_ids)
                solutions.append(Solution(tokens, True, right == "1"))
            file.add(
                QuestionRollouts(
                    number, question, str(2 * number), len(prompt) + prompt_tokens, tuple(solutions)
                )
            )
    return path


def test_right_solutions_weigh_as_much_as_their_advantage(loaded, tmp_path):
    """Of GRPO: with n solutions of which k are right, sqrt((n - k) / k)."""
    _, tokenizer = loaded
    found = read_rollout_rows(write(tmp_path / "file", tokenizer), 1, seed=3)
    rows = sorted(found.training + found.held_out, key=lambda row: (row.question, row.tokens))
    weights = {row.question[8]: row.weight for row in rows}
    assert weights == pytest.approx({"0": 1, "1": 3**0.5, "2": 3**-0.5, "5": 1, "6": 1, "7": 1})
    texts = [tokenizer.decode(row.tokens) for row in rows if row.question[8] == "2"]
    assert texts == [f"Answer {n} is 2 + 2 = 4" for n in range(3)]
    assert not {row.question for row in found.training} & {row.question for row in found.held_out}
    assert len({row.question for row in found.held_out}) == 1 and not found.calculator


def test_a_question_that_was_asked_again_is_in_one_part(loaded, tmp_path):
    path = write(tmp_path / "file", loaded[1], outcomes=("10",) * 12)
    again = re.sub(
        r"What is (\d+) and \d+", lambda match: f"What is {int(match[1]) // 4}", path.read_text()
    )  # three questions, four times each
    path.write_text(again)
    rows = read_rollout_rows(path, 2, seed=3)
    assert len(rows.held_out) == 2 and rows.training
    assert not {row.question for row in rows.training} & {row.question for row in rows.held_out}


def test_a_solution_that_did_not_end_is_not_learned(loaded, tmp_path):
    path = write(tmp_path / "file", loaded[1])
    text = path.read_text().replace('"ended": true, "right": true', '"ended": false, "right": true', 1)
    path.write_text(text)
    rows = read_rollout_rows(path, 1, seed=3)
    assert len(rows.training) + len(rows.held_out) == 7


def test_the_example_has_the_sampled_tokens(loaded):
    _, tokenizer = loaded
    prompt = tokenizer(prompt_text(tokenizer, "How many?"), add_special_tokens=False).input_ids
    tokens = tuple(tokenizer("It is 12 + 30 = 42.", add_special_tokens=False).input_ids)
    row = SampledRow("How many?", len(prompt), tokens, 2.0)
    example = encode_sampled(tokenizer, row, calculator=True)
    assert example.ids == [*prompt, *tokens, tokenizer.eos_token_id]
    assert (example.prompt_tokens, example.weight) == (len(prompt), 2.0)
    learned = tokenizer.decode([example.ids[place] for place in example.loss_places])
    assert learned.replace(" ", "") == "Itis12+30=.<|im_end|>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_tokens": 9}, "the prompt of 'How many\\?' has 9 tokens there, [0-9]+ here"),
        ({"tokens": (5, 10**6)}, "the base has no token 1000000"),
        ({"tokens": (-1,)}, "the base has no token -1"),
    ],
)
def test_a_solution_of_another_tokenizer_is_refused(loaded, change, message):
    _, tokenizer = loaded
    prompt = tokenizer(prompt_text(tokenizer, "How many?"), add_special_tokens=False).input_ids
    row = replace(SampledRow("How many?", len(prompt), (5,), 1.0), **change)
    with pytest.raises(CheckpointError, match=f"another chat template or tokenizer than the base: {message}"):
        encode_sampled(tokenizer, row)


def test_the_weight_is_a_factor_of_the_loss(base):
    """Otherwise a question that is nearly always right would be learned as much as a hard one."""
    losses = []
    for weight in (1.0, 2.5):
        model, tokenizer = load_base_model(base("llama"))
        prompt = tokenizer(prompt_text(tokenizer, "How many?"), add_special_tokens=False).input_ids
        rows = [SampledRow("How many?", len(prompt), (5, 6, 7 + n), weight if n else 1.0) for n in range(2)]
        examples = [encode_sampled(tokenizer, row) for row in rows]
        first, second = held_out_losses(model, examples)
        recipe = replace(RECIPES["tinylora"], threads=1)
        attach_adapter(model, recipe)
        losses.append(fit_adapter(model, examples, recipe).losses[0])
        assert losses[-1] == pytest.approx((first + weight * second) / 8, rel=1e-5)
    assert losses[1] > losses[0]


FLAGS = ("--kind", "tinylora", "--held-out", 2, "--threads", 1, "--json")


def test_the_command_makes_right_answers_likelier(thirteen, base, loaded, tmp_path):
    rollouts, out = write(tmp_path / "rollouts.jsonl", loaded[1]), tmp_path / "adapter"
    rate = ("--learning-rate", 0.05, "--epochs", 8)
    done = thirteen("train", base("llama"), "--rollouts", rollouts, "-o", out, *FLAGS, *rate)
    assert done.status == 0, done
    result = json.loads(done.stdout)
    assert result["trained_numbers"] == 13 and result["rows"] >= 4  # two of six questions are held out
    assert result["loss_after"] < result["loss_before"]
    card = (out / "README.md").read_text()
    assert "On 2 questions that it was never trained on" in card
    assert "rollouts.jsonl, right solutions that were sampled" in card and "| final_line | False |" in card


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "give --data or --rollouts"),
        ("--data {file} --rollouts {file}", "exclude each other"),
        ("--rollouts {file}", "less than the 6 questions that are sometimes right"),
        ("--rollouts {file} --held-out 6", "--held-out 6: must be at least 1 and less than the 6 questions"),
        ("--rollouts {system}", "rollouts with another prompt: system is 'Think.' in the file, None now"),
        ("--rollouts {none} --held-out 1", "none of its 2 solutions is right"),
        ("--rollouts {other} --held-out 2", "another chat template or tokenizer than the base"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(thirteen, base, loaded, tmp_path, flags, message):
    files = {
        "file": write(tmp_path / "file", loaded[1]),
        "system": write(tmp_path / "system", loaded[1], system="Think."),
        "none": write(tmp_path / "none", loaded[1], outcomes=("00",)),
        "other": write(tmp_path / "other", loaded[1], prompt_tokens=3),
    }
    done = thirteen("train", base("llama"), "-o", tmp_path / "out", *flags.format(**files).split())
    assert done.status == 2 and message in done.stderr, done
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
