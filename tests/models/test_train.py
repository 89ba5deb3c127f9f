"""Training: what is read, what the loss is taken on, what moves and what stays, and what is saved."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from thirteen.convert.pipeline import convert
from thirteen.errors import CheckpointError, OutputError, ThirteenError
from thirteen.models import train as training
from thirteen.models.train import HeldOut, Recipe, Row, TrainResult
from thirteen.runtime.answer import final_answer

from ..checkpoints import llama, save_model

ROWS = [Row(f"What is {n} and {n}?", f"It is {n}+{n} = {2 * n}.", str(2 * n)) for n in range(2, 14)]
RECIPE = Recipe(learning_rate=0.05, epochs=6, batch_rows=4, held_out=4, threads=1, max_tokens=200)


@pytest.fixture(scope="module")
def loaded(base):
    return training.load(base("llama"))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory) -> tuple[TrainResult, str]:
    """A run of the command line on a tiny random Llama, and what it wrote to standard output."""
    folder = tmp_path_factory.mktemp("train")
    data, out = folder / "rows.jsonl", folder / "adapter"
    data.write_text("".join(json.dumps(vars(row)) + "\n" for row in ROWS))
    flags = {"data": data, "out": out, "base": base("llama"), "base-id": "some/base", "learning-rate": 0.05}
    flags |= {"epochs": 6, "batch-rows": 4, "held-out": 4, "threads": 1, "max-tokens": 200}
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return training._run(training._arguments(argv), argv), " ".join(argv)


def test_the_loss_is_that_of_the_answer_and_its_end_alone(loaded):
    """A loss on the prompt too would teach the model to ask the questions."""
    import torch

    model, tokenizer = loaded
    example = training.encode(tokenizer, ROWS[0])
    answer = tokenizer.decode(example.ids[example.prompt_tokens :])
    assert answer == "It is 2+2 = 4.\n#### 4<|im_end|>"
    assert tokenizer.decode(example.ids).endswith("assistant\n" + answer)
    with torch.no_grad():
        logits = (
            model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        )  # (tokens, vocabulary)
    expected = -sum(logits[i - 1, example.ids[i]] for i in range(example.prompt_tokens, len(example.ids)))
    assert training.measure(model, [example])[0] == pytest.approx(float(expected), rel=1e-5)


def test_a_row_costs_the_same_alone_as_padded_in_a_batch(loaded):
    """A padded batch whose padding is seen, or whose rows come back in another order, is off by a little."""
    model, tokenizer = loaded
    rows = [Row("a" * n, "b" * (20 - n)) for n in (9, 1, 17, 4)]
    examples = [training.encode(tokenizer, row) for row in rows]
    alone = training.measure(model, examples, batch_rows=1)
    assert training.measure(model, examples, batch_rows=4) == pytest.approx(alone, rel=1e-5)


def test_thirteen_numbers_train_and_nothing_else_moves(base):
    import torch

    model, tokenizer = training.load(base("llama"))
    examples = [training.encode(tokenizer, row) for row in ROWS]
    start = sum(training.measure(model, examples))
    training.attach(model, RECIPE)
    assert sum(training.measure(model, examples)) == pytest.approx(start, rel=1e-6)  # v starts at zero
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    losses = training.fit(model, examples, RECIPE)
    assert len(losses) == 18
    assert [p.numel() for p in model.parameters() if p.requires_grad] == [13]
    assert sum(training.measure(model, examples)) < start * 0.99
    now = dict(model.named_parameters())
    assert all(torch.equal(weight, now[name]) and now[name].grad is None for name, weight in frozen.items())


def test_a_run_saves_what_it_measured(trained, base):
    from peft import PeftModel

    result, _ = trained
    assert (result.trained_numbers, result.rows, result.steps) == (13, 8, 12)
    model, tokenizer = training.load(base("llama"))
    _, held = training.split(ROWS, 4, RECIPE.seed)
    examples = [training.encode(tokenizer, row) for row in held]
    assert training.measure(model, examples) == pytest.approx(result.held_out.before, rel=1e-5)
    PeftModel.from_pretrained(model, result.folder)
    assert training.measure(model, examples) == pytest.approx(result.held_out.after, rel=1e-5)


def test_the_adapter_loads_anywhere_and_its_files_are_stable(trained):
    from safetensors.numpy import load_file

    folder = trained[0].folder
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == "some/base"
    assert (config["save_projection"], config["projection_seed"], config["weight_tying"]) == (True, 42, 1.0)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {name: t.shape for name, t in tensors.items() if "tinylora_v" in name} == {
        "base_model.tinylora_v.0": (13,)
    }
    assert sum("tinylora_P" in name for name in tensors) == 2 * len(training.PROJECTIONS)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}


def test_the_card_says_how_and_what(trained):
    result, command = trained
    text = (result.folder / "README.md").read_text()
    assert text.startswith("---\nbase_model: some/base\nlibrary_name: peft\n")
    assert f"python -m thirteen.models.train {command}" in text
    assert f"| before | {result.held_out.loss_before:.4f} |" in text
    assert "| learning_rate | 0.05 |" in text


def test_the_same_seed_gives_the_same_numbers(base):
    runs = []
    for _ in range(2):
        model, tokenizer = training.load(base("llama"))
        training.attach(model, RECIPE)
        examples = [training.encode(tokenizer, row) for row in ROWS[:4]]
        runs.append(training.fit(model, examples, replace(RECIPE, epochs=2)))
    assert runs[0] == runs[1]


def test_the_interval_is_paired():
    """Rows differ far more among themselves than each from before to after."""
    before = tuple(float(n) for n in range(10, 210))
    held = HeldOut((10,) * 200, before, tuple(loss - 0.1 - 0.001 * (n % 3) for n, loss in enumerate(before)))
    low, high = held.interval()
    assert low <= held.loss_after - held.loss_before <= high < -0.0100
    assert high - low < 1e-4


def test_split_and_batches_keep_every_row_once():
    rows, held = training.split(ROWS, 5, seed=1)
    assert len(held) == 5
    assert sorted(rows + held, key=ROWS.index) == ROWS
    assert training.split(ROWS, 5, seed=1) == (rows, held)
    assert training.split(ROWS, 5, seed=2) != (rows, held)
    examples = [training.Example([0] * n, 1) for n in range(2, 100)]
    cut = training.batches(examples, 8, seed=3)
    assert sorted((e for batch in cut for e in batch), key=lambda e: len(e.ids)) == examples
    assert max(len(batch[-1].ids) - len(batch[0].ids) for batch in cut) < 30
    assert cut != training.batches(examples, 8, seed=4)


def test_the_final_line_is_what_the_answer_parser_reads_first():
    assert final_answer(Row("q", "so 3 of 8 are left", "1,234").target) == Fraction(1234)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("\n\n", "holds no rows"),
        ("{}", "line 1: 'question' must be a text that is not empty, not None"),
        ('{"question": "q", "solution": "s"}\n{"question": "q"}', "line 2: 'solution' must be"),
        ('{"question": "q", "solution": "  "}', "line 1: 'solution' must be"),
        ('{"question": 3, "solution": "s"}', "line 1: 'question' must be a text that is not empty, not 3"),
        ('{"question": "q", "solution": "s", "answer": []}', "line 1: 'answer' must be"),
        ("\nnot json", "line 2: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("[1]", "line 1: a JSON object is wanted, not list"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_bad_data_is_one_line_naming_file_and_line(tmp_path, capsys, text, message):
    path = tmp_path / "rows.jsonl"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert training.main(["--data", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--held-out 12", "--held-out 12: must leave some of the 12 rows"),
        ("--held-out 0", "--held-out 0: must be at least 1"),
        ("--learning-rate 0", "--learning-rate 0.0: must be"),
        ("--learning-rate nan", "--learning-rate nan: must be"),
        ("--held-out 4 --max-tokens 3", "--max-tokens 3: all 8 training rows are longer"),
        ("--held-out 4 --base nowhere", "nowhere: transformers cannot load it"),
    ],
)
def test_flags_that_cannot_work(tmp_path, capsys, base, flags, message):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(vars(row)) + "\n" for row in ROWS))
    argv = ["--data", str(data), "--out", str(tmp_path / "out"), "--base", str(base("llama")), *flags.split()]
    assert training.main(argv) == 2
    assert message in capsys.readouterr().err


def test_a_target_that_cannot_be_made(tmp_path, base):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        training.train(base("llama"), ROWS[:8], ROWS[8:], tmp_path / "file" / "out", recipe=RECIPE)


def test_a_base_without_a_chat_template(tmp_path, base):
    import shutil

    folder = shutil.copytree(base("llama"), tmp_path / "base")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no chat template"):
        training.load(folder)


def test_a_gguf_base_is_the_folder_that_it_came_from(tmp_path):
    """transformers' own reading of a GGUF forgets that each digit is a token."""
    folder = save_model(tmp_path / "base", llama(), rules="smollm")
    convert(folder, tmp_path / "base.gguf", type_="F32")
    (model, tokenizer), (same, twin) = training.load(folder), training.load(tmp_path / "base.gguf")
    rows = [*ROWS, Row("  12 or\n\t1234½ 漢字?", "'t is 1,000.50 \U0001f600")]
    examples = [training.encode(tokenizer, row) for row in rows]
    assert examples == [training.encode(twin, row) for row in rows]
    assert training.measure(model, examples) == pytest.approx(training.measure(same, examples), rel=1e-5)


def test_a_gguf_whose_splitting_transformers_would_lose_is_refused(tmp_path, base):
    convert(base("llama"), tmp_path / "base.gguf", type_="F32")
    with pytest.raises(CheckpointError, match="'llama-bpe'; train from the folder"):
        training.load(tmp_path / "base.gguf")


def test_a_loss_that_is_no_number_stops_the_run(monkeypatch):
    import torch

    monkeypatch.setattr(training, "row_losses", lambda model, batch: model.weight.sum() * torch.nan)
    examples = [training.Example([0] * 4, 2)] * 8
    with pytest.raises(ThirteenError, match=r"became nan: lower --learning-rate 0\.05"):
        training.fit(torch.nn.Linear(2, 2), examples, RECIPE)


def test_importing_the_module_is_cheap():
    import subprocess
    import sys

    code = "import sys, thirteen.models.train; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
