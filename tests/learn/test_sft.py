"""Supervised training: data, loss, trained parameters, resumption and saved files."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction

import pytest
from thirteen.convert.adapter.basis import BasisOrigin, make_basis, read_basis
from thirteen.convert.adapter.tinylora_folder import read_tinylora_numbers
from thirteen.convert.pipeline import convert
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import CheckpointError, OutputError, ThirteenError
from thirteen.learn import sft
from thirteen.learn.base_model import attach_adapter, load_base_model, trained_numbers
from thirteen.learn.examples import (
    Example,
    batches,
    encode_example,
    encode_sampled,
    held_out_losses,
    prompt_text,
    row_losses,
)
from thirteen.learn.job import TrainCheckpoint, TrainingJob, TrainState
from thirteen.learn.recipe import RECIPES
from thirteen.learn.rollouts import SampledRow
from thirteen.learn.sft import HeldOutLoss, SftResult, fit_adapter, train_sft
from thirteen.models.rows import TrainingRow, split_rows
from thirteen.runtime.arithmetic.final_answer import final_answer
from thirteen.runtime.engine.output_stream import sampled_mask
from thirteen.runtime.llama.model import Model

from ..checkpoints import llama, qwen2, save_model

ROWS = [TrainingRow(f"What is {n} and {n}?", f"It is {n}+{n} = {2 * n}.", str(2 * n)) for n in range(2, 14)]
RECIPE = replace(
    RECIPES["tinylora"], learning_rate=0.05, epochs=6, batch_rows=4, held_out=4, threads=1, max_tokens=200
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(vars(row)) + "\n" for row in ROWS))
    return path


def test_only_as_many_rows_as_are_kept_are_tokenized(monkeypatch):
    encoded = []

    def encode(_tokenizer, row, _recipe):
        encoded.append(row)
        return Example([0] * (300 if row is ROWS[1] else 10), 5)

    monkeypatch.setattr(sft, "_encode", encode)
    assert len(sft._training_examples(None, ROWS, replace(RECIPE, max_rows=2))) == 2
    assert encoded == ROWS[:3]


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory) -> SftResult:
    """A run on a tiny random Llama."""
    rows, held = split_rows(ROWS, 4, RECIPE.seed)
    out = tmp_path_factory.mktemp("train") / "adapter"
    checkpoint = open_checkpoint(base("llama"))
    basis = make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256()))
    return train_sft(TrainingJob(base("llama"), out, RECIPE, basis, "some/base"), rows, held)


def test_the_loss_is_on_the_answer_and_its_end_token_only(loaded):
    """A loss on the prompt would teach the model to ask questions."""
    import torch

    model, tokenizer = loaded
    example = encode_example(tokenizer, ROWS[0])
    answer = tokenizer.decode(example.ids[example.prompt_tokens :])
    assert answer == "It is 2+2 = 4.\n#### 4<|im_end|>"
    assert tokenizer.decode(example.ids).endswith("assistant\n" + answer)
    with torch.no_grad():
        logits = (
            model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        )  # (tokens, vocabulary)
    expected = -sum(logits[i - 1, example.ids[i]] for i in range(example.prompt_tokens, len(example.ids)))
    assert held_out_losses(model, [example])[0] == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_leaves_out_what_the_calculator_inserts(loaded):
    model, tokenizer = loaded
    row = TrainingRow("How many?", "First 12 + 30 = 42. Then 42 * 2 = 85, so 85.", "85")
    plain = encode_example(tokenizer, row, final_line=False)
    masked = encode_example(tokenizer, row, final_line=False, calculator=True)
    learned = tokenizer.decode([masked.ids[place] for place in masked.loss_places])
    assert learned.replace(" ", "") == "First12+30=.Then42*2=85,so85.<|im_end|>"  # 85 is not what it inserts
    assert masked.ids == plain.ids and masked.answer_tokens == len(masked.loss_places) < plain.answer_tokens
    all_, some = (held_out_losses(model, [example])[0] for example in (plain, masked))
    assert 0 < some < all_


@pytest.mark.parametrize(("config", "rules"), [(llama, "llama"), (llama, "smollm"), (qwen2, "qwen")])
def test_the_loss_leaves_out_what_the_runtime_would_insert(tmp_path, config, rules):
    """A sign of two tokens was two replacement characters, and its result was learned."""
    from transformers import AutoTokenizer

    folder = save_model(tmp_path / "base", config(), rules=rules)
    convert(folder, tmp_path / "base.gguf", quantization="F32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = TrainingRow("How many?", "It is 6 ÷ 2 = 3, then 30 ÷<|endoftext|> 6 = 5.")
    example = encode_example(tokenizer, row, calculator=True)
    learned = tokenizer.decode([example.ids[place] for place in example.loss_places])
    assert learned.replace(" ", "") == "Itis6÷2=,then30÷<|endoftext|>6=.<|im_end|>"
    with Model(tmp_path / "base.gguf", vocabulary_only=True) as model:
        mask = sampled_mask(model, example.ids[example.prompt_tokens : -1])
    assert example.inserted == {
        place for place, sampled in enumerate(mask, example.prompt_tokens) if not sampled
    }


def test_the_calculator_needs_a_byte_level_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"▁1": 0}, unk_token="▁1"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, chat_template="{{ 1 }}")
    with pytest.raises(
        CheckpointError, match="needs a byte-level tokenizer, but the base has the token '▁1'"
    ):
        encode_example(tokenizer, TrainingRow("How many?", "1"), calculator=True)


def test_a_basis_with_groups_is_trained_by_its_file(thirteen, base, data, tmp_path):
    basis, out = tmp_path / "basis.safetensors", tmp_path / "adapter"
    made = thirteen("adapter", "basis", base("llama"), "--numbers", 8, "--groups", 2, "-o", basis)
    assert made.status == 0, made
    flags = ("--kind", "tinylora", "--basis", basis, "--held-out", 4, "--no-final-line", "--calculator")
    done = thirteen("train", base("llama"), "--data", data, "-o", out, *flags, "--json")
    assert done.status == 0, done
    assert json.loads(done.stdout)["trained_numbers"] == 8
    numbers = read_tinylora_numbers(out, read_basis(basis))
    assert numbers.shape == (8,) and numbers[:4].any() and numbers[4:].any()
    card = (out / "README.md").read_text()
    assert "the answer ends in" not in card and "| numbers | 8 |" in card


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--kind lora", "it is for --kind tinylora"),
        ("--kind tinylora --rank 2 --numbers 13", "it determines --rank and --numbers"),
    ],
)
def test_options_that_contradict_a_basis_are_refused(thirteen, base, data, tmp_path, flags, message):
    done = thirteen(
        "train", base("llama"), "--data", data, "-o", tmp_path / "out", "--basis", "b", *flags.split()
    )
    assert done.status == 2 and message in done.stderr and done.stderr.count("\n") == 1, done


def test_the_basis_of_another_base_is_refused(thirteen, base, data, tmp_path):
    other, basis = save_model(tmp_path / "other", llama(hidden_size=32)), tmp_path / "basis.safetensors"
    assert thirteen("adapter", "basis", other, "-o", basis).status == 0
    flags = ("--kind", "tinylora", "--basis", basis, "--held-out", 4)
    done = thirteen("train", base("llama"), "--data", data, "-o", tmp_path / "out", *flags)
    assert done.status == 2 and "the basis is of other: its" in done.stderr, done
    assert done.stderr.splitlines()[-1].startswith("error: ") and not (tmp_path / "out").exists()


def test_the_loss_of_a_row_does_not_depend_on_its_batch(loaded):
    """Attention to the padding, or a wrong order of the rows, would change the losses slightly."""
    model, tokenizer = loaded
    rows = [TrainingRow("a" * n, "b" * (20 - n)) for n in (9, 1, 17, 4)]
    examples = [encode_example(tokenizer, row) for row in rows]
    alone = held_out_losses(model, examples, batch_rows=1)
    assert held_out_losses(model, examples, batch_rows=4) == pytest.approx(alone, rel=1e-5)


def test_only_the_thirteen_numbers_change(base):
    import torch

    model, tokenizer = load_base_model(base("llama"))
    examples = [encode_example(tokenizer, row) for row in ROWS]
    start = sum(held_out_losses(model, examples))
    attach_adapter(model, RECIPE)
    assert sum(held_out_losses(model, examples)) == pytest.approx(start, rel=1e-6)  # v starts at zero
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    losses = fit_adapter(model, examples, RECIPE).losses
    assert len(losses) == 18
    assert [p.numel() for p in model.parameters() if p.requires_grad] == [13]
    assert sum(held_out_losses(model, examples)) < start * 0.99
    now = dict(model.named_parameters())
    assert all(torch.equal(weight, now[name]) and now[name].grad is None for name, weight in frozen.items())


def test_bfloat16_gives_nearly_the_same_losses_and_gradient(base):
    """Also on a processor without it, where PyTorch converts."""
    import torch

    model, tokenizer = load_base_model(base("llama"))
    examples = [encode_example(tokenizer, row) for row in ROWS]
    attach_adapter(model, RECIPE)
    (numbers,) = (p for p in model.parameters() if p.requires_grad)
    losses, gradients = [], []
    for bf16 in (False, True):
        loss = row_losses(model, examples, bf16=bf16)
        (gradient,) = torch.autograd.grad(loss.sum(), numbers)
        assert loss.dtype == gradient.dtype == torch.float32
        losses.append(loss.tolist())
        gradients.append(gradient)
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != pytest.approx(losses[0], rel=1e-6)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


def test_the_saved_adapter_has_the_measured_losses(trained, base):
    from peft import PeftModel

    result = trained
    assert (result.trained_numbers, result.rows, result.steps) == (13, 8, 12)
    model, tokenizer = load_base_model(base("llama"))
    _, held = split_rows(ROWS, 4, RECIPE.seed)
    examples = [encode_example(tokenizer, row) for row in held]
    assert held_out_losses(model, examples) == pytest.approx(result.held_out.before, rel=1e-5)
    PeftModel.from_pretrained(model, result.folder)
    assert held_out_losses(model, examples) == pytest.approx(result.held_out.after, rel=1e-5)


def test_the_files_are_an_ordinary_peft_adapter(trained):
    from safetensors.numpy import load_file

    folder = trained.folder
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == "some/base"
    assert (config["save_projection"], config["projection_seed"], config["weight_tying"]) == (True, 42, 1.0)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {name: t.shape for name, t in tensors.items() if "tinylora_v" in name} == {
        "base_model.tinylora_v.0": (13,)
    }
    assert sum("tinylora_P" in name for name in tensors) == 2 * 7
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}


def test_the_frozen_factors_are_those_of_the_basis(trained, base):
    checkpoint = open_checkpoint(base("llama"))
    basis = make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256()))
    assert read_tinylora_numbers(trained.folder, basis).any()


TRAIN = ("--held-out", 4, "--threads", 1, "--max-tokens", 200, "--batch-rows", 4, "--json")


def test_the_command_writes_an_adapter_with_a_card(thirteen, base, data, tmp_path):
    out = tmp_path / "out"
    flags = ("--rank", 2, "--learning-rate", 0.01)
    done = thirteen("train", base("llama"), "--data", data, "-o", out, *flags, *TRAIN)
    assert done.status == 0, done
    result = json.loads(done.stdout)
    assert result["trained_numbers"] == 4_096 and result["loss_after"] < result["loss_before"]
    text = (out / "README.md").read_text()
    assert f"| before | {result['loss_before']:.4f} |" in text and "| learning_rate | 0.01 |" in text
    assert "thirteen train" in text and len(result["validation"]) == 3
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (2, 16, "none")


def test_the_published_recipe_is_the_default():
    lora = RECIPES["lora"]
    assert (lora.rank, lora.alpha, lora.epochs, lora.learning_rate, lora.batch_rows) == (1, 16, 3, 4e-5, 128)


def test_the_number_of_trained_parameters_for_the_1b_shape():
    """On the meta device, where weights have only shapes."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128_256}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**shape, **heads, tie_word_embeddings=True))
        attach_adapter(model.requires_grad_(False), RECIPES["lora"])
    assert trained_numbers(model) == 704_512


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["lora", "tinylora"])
def test_a_resumed_run_ends_with_the_same_weights(base, tmp_path, kind):
    """Lost Adam moments or a wrong place in the schedule would change the last bits."""
    import torch

    recipe = replace(RECIPES[kind], learning_rate=0.01, epochs=3, batch_rows=4, micro_rows=2, threads=1)

    def run(path, stop):
        torch.manual_seed(recipe.seed)
        model, tokenizer = load_base_model(base("llama"))
        attach_adapter(model, recipe)
        examples = [encode_example(tokenizer, row) for row in ROWS]

        def progress(done, total):
            if done == stop:
                raise Killed

        fit_adapter(
            model, examples, recipe, checkpoint=TrainCheckpoint(path, "run", TrainState, 2), progress=progress
        )
        return [p.detach().clone() for p in model.parameters() if p.requires_grad]

    whole = run(tmp_path / "whole", None)
    for stop in (3, 6):
        with pytest.raises(Killed):
            run(tmp_path / "parts", stop)
    parts = run(tmp_path / "parts", None)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def sampled(tokenizer, question, *weights):
    """Solutions to a question, which differ in their weights alone."""
    prompt = tokenizer(prompt_text(tokenizer, question), add_special_tokens=False).input_ids
    return [SampledRow(question, len(prompt), (5, 6, 7), weight) for weight in weights]


def killed_stage(name):
    """Progress of a run that is killed at its eleventh step; ten are saved."""

    def progress(done, total):
        if (name, done) == ("train", 11):
            raise Killed

    return progress


@pytest.mark.parametrize("kind", ["solutions", "rollouts"])
def test_a_run_resumes_on_another_day(dated, templated, tmp_path, kind):
    """With the date in its prompts, it was taken for another run."""
    tokenizer = load_base_model(dated)[1]
    rows = {
        "solutions": (ROWS[:2], ROWS[2:4]),
        "rollouts": (sampled(tokenizer, "How many?", 1.0, 2.0), sampled(tokenizer, "How few?", 1.0)),
    }[kind]
    job = TrainingJob(dated, tmp_path / "out", replace(RECIPE, epochs=6, batch_rows=1))
    with pytest.raises(Killed):
        train_sft(job, *rows, killed_stage)
    if kind == "solutions":
        for other in (
            replace(job, base=templated("Hello.")),
            replace(job, recipe=replace(job.recipe, final_line=False)),
        ):
            with pytest.raises(ThirteenError, match="checkpoint of a run with another base"):
                train_sft(other, *rows)
        with pytest.raises(ThirteenError, match="checkpoint of a run with another base"):
            train_sft(job, [replace(ROWS[0], question="How?"), ROWS[1]], rows[1])
    done = []
    assert train_sft(job, *rows, lambda name: lambda step, _: done.append((name, step))).steps == 12
    assert [step for name, step in done if name == "train"] == [11, 12]


def test_solutions_to_a_held_out_question_are_one_unit(base, loaded, tmp_path):
    """Resampled one by one, they made the interval too narrow."""
    _, tokenizer = loaded
    training, *held = (sampled(tokenizer, f"How many {n}?", 1.5, 1.5, 1.5) for n in range(3))
    job = TrainingJob(base("llama"), tmp_path / "out", replace(RECIPE, epochs=1))
    found = train_sft(job, training, held[0] + held[1]).held_out
    assert found.tokens == (12, 12) and len(found.before) == len(found.after) == 2
    assert found.before[0] == pytest.approx(
        3 * held_out_losses(loaded[0], [encode_sampled(tokenizer, held[0][0])])[0], rel=1e-5
    )


def test_a_run_with_its_weights_in_another_order_is_another_run(base, loaded, tmp_path):
    """The weights other than 1 were part of its id without their places."""
    _, tokenizer = loaded
    job = TrainingJob(base("llama"), tmp_path / "out", replace(RECIPE, epochs=6, batch_rows=1))
    held = sampled(tokenizer, "How few?", 1.0)
    with pytest.raises(Killed):
        train_sft(job, sampled(tokenizer, "How many?", 1.0, 2.0), held, killed_stage)
    with pytest.raises(ThirteenError, match="checkpoint of a run with another base"):
        train_sft(job, sampled(tokenizer, "How many?", 2.0, 1.0), held)
    assert train_sft(job, sampled(tokenizer, "How many?", 1.0, 2.0), held).steps == 12


def test_a_step_does_not_depend_on_the_micro_batch(base):
    losses = []
    for micro in (1, 3, 8):
        model, tokenizer = load_base_model(base("llama"))
        attach_adapter(model, RECIPE)
        examples = [encode_example(tokenizer, row) for row in ROWS[:8]]
        recipe = replace(RECIPE, epochs=4, batch_rows=8, micro_rows=micro)
        losses.append(fit_adapter(model, examples, recipe).losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "damaged"), (b"PK", "damaged"), (None, "another base")]
)
def test_a_damaged_or_foreign_checkpoint_is_refused(base, tmp_path, content, message):
    path = tmp_path / "checkpoint"
    model, tokenizer = load_base_model(base("llama"))
    attach_adapter(model, RECIPE)
    examples = [encode_example(tokenizer, row) for row in ROWS]
    fit_adapter(
        model, examples, replace(RECIPE, epochs=1), checkpoint=TrainCheckpoint(path, "one", TrainState, 1)
    )
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ThirteenError, match=message):
        fit_adapter(model, examples, RECIPE, checkpoint=TrainCheckpoint(path, "other", TrainState, 1))


def test_the_same_seed_gives_the_same_losses(base):
    runs = []
    for _ in range(2):
        model, tokenizer = load_base_model(base("llama"))
        attach_adapter(model, RECIPE)
        examples = [encode_example(tokenizer, row) for row in ROWS[:4]]
        runs.append(fit_adapter(model, examples, replace(RECIPE, epochs=2)).losses)
    assert runs[0] == runs[1]


def test_the_interval_is_paired():
    """Rows differ much more from each other than each row does before and after."""
    before = tuple(float(n) for n in range(10, 210))
    held = HeldOutLoss(
        (10,) * 200, before, tuple(loss - 0.1 - 0.001 * (n % 3) for n, loss in enumerate(before))
    )
    difference = held.difference
    assert difference.estimate == pytest.approx(held.loss_after - held.loss_before)
    assert difference.low <= difference.estimate <= difference.high < -0.0100
    assert difference.high - difference.low < 1e-4


def test_splits_and_batches_contain_each_row_once():
    rows, held = split_rows(ROWS, 5, seed=1)
    assert len(held) == 5
    assert sorted(rows + held, key=ROWS.index) == ROWS
    assert split_rows(ROWS, 5, seed=1) == (rows, held)
    assert split_rows(ROWS, 5, seed=2) != (rows, held)
    examples = [Example([0] * n, 1) for n in range(2, 100)]
    cut = batches(examples, 8, seed=3)
    assert sorted((e for batch in cut for e in batch), key=lambda e: len(e.ids)) == examples
    assert max(len(batch[-1].ids) - len(batch[0].ids) for batch in cut) < 30
    assert cut != batches(examples, 8, seed=4)


def test_the_answer_parser_reads_the_last_line_of_the_target():
    assert final_answer(TrainingRow("q", "so 3 of 8 are left", "1,234").target) == Fraction(1234)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no rows"),
        ("\n\n", "contains no rows"),
        ("{}", "line 1: 'question' must be a non-empty string, not None"),
        ('{"question": "q", "solution": "s"}\n{"question": "q"}', "line 2: 'solution' must be"),
        ('{"question": "q", "solution": "  "}', "line 1: 'solution' must be"),
        ('{"question": 3, "solution": "s"}', "line 1: 'question' must be a non-empty string, not 3"),
        ('{"question": "q", "solution": "s", "answer": []}', "line 1: 'answer' must be"),
        ("\nnot json", "line 2: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("[1]", "line 1: not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_the_error_of_bad_data_names_file_and_line(tmp_path, thirteen, base, text, message):
    path = tmp_path / "rows.jsonl"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = thirteen("train", base("llama"), "--data", path, "-o", tmp_path / "out")
    error = done.stderr
    assert done.status == 2
    assert error.startswith(f"error: {path}")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--held-out 12", "--held-out 12: must be at least 1 and less than the 12 rows"),
        ("--held-out 0", "--held-out"),
        ("--learning-rate 0", "--learning-rate 0.0: must be"),
        ("--learning-rate nan", "--learning-rate nan: must be"),
        ("--rank 65", "--rank 65: must be at most 64"),
        ("--seed 20000000000000000000", "--seed 20000000000000000000: must be at most 4294967295"),
        ("--epochs 1000000000", "--epochs 1000000000: must be at most 10000"),
        ("--learning-rate inf", "--learning-rate inf: must be at most 1000"),
        ("--kind dora", "--kind 'dora'"),
        ("--method dpo", "--method 'dpo'"),
        ("--held-out 4 --max-tokens 3", "--max-tokens 3: all 8 training rows are longer"),
    ],
)
def test_invalid_options_are_refused(tmp_path, thirteen, base, data, flags, message):
    done = thirteen("train", base("llama"), "--data", data, "-o", tmp_path / "out", *flags.split())
    assert done.status == 2 and message in done.stderr and done.stderr.startswith("error: "), done
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_missing_base_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load_base_model(tmp_path / "nowhere")


def test_the_output_folder_is_checked_before_the_base_is_loaded(tmp_path, thirteen, data):
    (tmp_path / "file").touch()
    done = thirteen("train", tmp_path / "nowhere", "--data", data, "-o", tmp_path / "file" / "out")
    assert done.status == 2 and "file is a file, not a folder" in done.stderr, done


def test_an_output_folder_that_cannot_be_created_is_an_error(tmp_path, base):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is a file, not a folder"):
        train_sft(TrainingJob(base("llama"), tmp_path / "file" / "out", RECIPE), ROWS[:8], ROWS[8:])


def test_a_base_without_a_chat_template_is_refused(tmp_path, base):
    import shutil

    folder = shutil.copytree(base("llama"), tmp_path / "base")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no chat template"):
        load_base_model(folder)


@pytest.mark.parametrize(("config", "rules"), [(llama, "smollm"), (qwen2, "qwen")])
def test_a_gguf_base_equals_the_folder_that_it_was_made_from(tmp_path, config, rules):
    """transformers, reading a GGUF, drops SmolLM2's rule that each digit is a token."""
    folder = save_model(tmp_path / "base", config(), rules=rules)
    convert(folder, tmp_path / "base.gguf", quantization="F32")
    (model, tokenizer), (same, twin) = load_base_model(folder), load_base_model(tmp_path / "base.gguf")
    rows = [*ROWS, TrainingRow("  12 or\n\t1234½ 漢字?", "'t is 1,000.50 \U0001f600")]
    examples = [encode_example(tokenizer, row) for row in rows]
    assert examples == [encode_example(twin, row) for row in rows]
    assert held_out_losses(model, examples) == pytest.approx(held_out_losses(same, examples), rel=1e-5)


def test_a_gguf_with_an_unsupported_pre_tokenizer_is_refused(tmp_path, base):
    convert(base("llama"), tmp_path / "base.gguf", quantization="F32")
    with pytest.raises(CheckpointError, match="'llama-bpe'; train from the folder"):
        load_base_model(tmp_path / "base.gguf")


def test_a_nan_loss_stops_the_run(monkeypatch):
    import torch

    monkeypatch.setattr(sft, "row_losses", lambda model, batch, **_: model.weight.sum() * torch.nan)
    examples = [Example([0] * 4, 2)] * 8
    with pytest.raises(ThirteenError, match=r"became nan: lower --learning-rate 0\.05"):
        fit_adapter(torch.nn.Linear(2, 2), examples, RECIPE)


def test_the_import_does_not_load_torch():
    import subprocess
    import sys

    heavy = "{'torch', 'transformers', 'peft'}"
    code = f"import sys, thirteen.learn.sft; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_base_whose_settings_name_code_is_refused_before_transformers_reads_it(base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(base("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: 'auto_map' names code"):
        load_base_model(folder)
