"""Tokenized rows, and the loss on their answers."""

from dataclasses import replace

import pytest
from thirteen.learn.base_model import load_base_model, open_tokenizer
from thirteen.learn.examples import encode_example, encode_sampled, held_out_losses
from thirteen.learn.rollouts import SampledRow
from thirteen.models.rows import TrainingRow

from ..checkpoints import llama, qwen2, save_model

ROWS = [TrainingRow(f"What is {n} and {n}?", f"It is {n}+{n} = {2 * n}.", str(2 * n)) for n in range(2, 8)]


def test_the_loss_is_on_the_answer_and_its_end_token_only(loaded):
    """A loss on the prompt would teach the model to ask questions."""
    import torch

    model, tokenizer = loaded
    example = encode_example(tokenizer, ROWS[0])
    answer = tokenizer.text(example.ids[example.prompt_tokens :])
    assert answer == "It is 2+2 = 4.\n#### 4" and example.ids[-1] == tokenizer.vocabulary.eos
    assert tokenizer.text(example.ids).endswith("assistant\n" + answer)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
    expected = -sum(logits[i - 1, example.ids[i]] for i in range(example.prompt_tokens, len(example.ids)))
    assert held_out_losses(model, [example])[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("config", "rules"), [(llama, "llama"), (llama, "smollm"), (qwen2, "qwen")])
def test_the_loss_leaves_out_what_the_runtime_would_insert(tmp_path, config, rules):
    """A sign of two tokens was two replacement characters, and its result was learned."""
    folder = save_model(tmp_path / "base", config(), rules=rules)
    model = load_base_model(folder)
    row = TrainingRow("How many?", "It is 6 ÷ 2 = 3, then 30 ÷ 6 = 5. 42 * 2 = 85.")
    with open_tokenizer(folder) as tokenizer:
        plain, example = (encode_example(tokenizer, row, calculator=on) for on in (False, True))
        learned = tokenizer.text(example.ids[place] for place in example.loss_places)
    assert learned.replace(" ", "") == "Itis6÷2=,then30÷6=.42*2=85."
    assert example.ids == plain.ids and example.answer_tokens == len(example.loss_places)
    (some,), (all_,) = (held_out_losses(model, [one]) for one in (example, plain))
    assert 0 < some < all_


def test_the_example_of_a_solution_has_the_sampled_tokens(loaded):
    _, tokenizer = loaded
    prompt, solution = tokenizer.prompt("How many?"), (*tokenizer.answer("It is 12 + 30 = 42."),)
    row = SampledRow("How many?", len(prompt), solution, 2.0)
    example = encode_sampled(tokenizer, row)
    assert example.ids == [*prompt, *row.tokens]
    assert example.prompt_tokens == len(prompt)
    learned = tokenizer.text(example.ids[place] for place in example.loss_places)
    assert learned.replace(" ", "") == "Itis12+30=."
    for tokens in range(1, 4):  # also if it is cut off within an inserted result
        cut_off = encode_sampled(tokenizer, replace(row, tokens=row.tokens[:-tokens]))
        learned = tokenizer.text(cut_off.ids[place] for place in cut_off.loss_places)
        assert learned.replace(" ", "") == ("Itis12+30=." if tokens == 1 else "Itis12+30=")
