"""Training by request: what is refused before anything is written, runs with their cards, and the command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from thirteen.convert.adapter.basis import BasisOrigin, make_basis, read_basis, write_basis
from thirteen.convert.adapter.tinylora_folder import read_tinylora_numbers
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import OutputError, ThirteenError
from thirteen.files.progress import Run
from thirteen.learn import base_model
from thirteen.workflows import training
from thirteen.workflows.training import TrainingRequest, run_training

from ..json_lines import write_rows

RUN = Run(threads=1)
ROWS = [
    {"question": f"What is {n} and {n}?", "solution": f"It is {n}+{n} = {2 * n}.", "answer": str(2 * n)}
    for n in range(2, 14)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture
def request_for(base, data, tmp_path) -> Callable[..., TrainingRequest]:
    """request_for(**options): a request for a tiny Llama and `data`, of which four rows are held out."""

    def make(**options) -> TrainingRequest:
        common = {"base": str(base("llama")), "output": tmp_path / "out", "data": data, "held_out": 4}
        return TrainingRequest(**(common | options))

    return make


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": 8}, "numbers: it is for kind tinylora"),
        ({"basis": Path("b")}, "basis: it is for kind tinylora"),
        ({"kind": "tinylora", "alpha": 8}, "alpha: it is for kind lora"),
        ({"kind": "tinylora", "basis": Path("b"), "rank": 2}, "rank: basis determines it"),
    ],
)
def test_options_without_effect_or_sense_are_refused(options, message):
    with pytest.raises(ThirteenError, match=message):
        TrainingRequest(base="a", output=Path("out"), data=Path("a"), **options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate 0.0: must be at least"),
        ({"learning_rate": float("nan")}, "learning_rate nan: must be"),
        ({"learning_rate": float("inf")}, "learning_rate inf: must be at most 1000"),
        ({"rank": 65}, "rank 65: must be at most 64"),
        ({"seed": 1 << 64}, f"seed {1 << 64}: must be at most 4294967295"),
        ({"held_out": 0}, "held_out 0: must be at least 1"),
        ({"held_out": 12}, "held_out 12: must be at least 1 and less than the 12 rows"),
        ({"max_tokens": 3}, "max_tokens 3: all 8 training rows are longer"),
    ],
)
def test_values_out_of_range_are_refused(request_for, tmp_path, options, message):
    with pytest.raises(ThirteenError, match=message):
        run_training(request_for(**options), run=RUN)
    assert not (tmp_path / "out").exists()


def test_a_run_whose_card_could_not_be_written_goes_on(request_for, monkeypatch):
    """Its checkpoint was gone, and the same command refused the folder."""
    request, write = request_for(), training.write_card
    monkeypatch.setattr(training, "write_card", lambda *_: write(Path("/dev/null"), ""))
    with pytest.raises(OutputError):
        run_training(request, run=RUN)
    monkeypatch.setattr(training, "write_card", write)
    run_training(request, run=RUN)
    assert (request.output / "README.md").exists() and not (request.output / ".checkpoint.pt").exists()


def test_without_peft_it_is_a_line(request_for, monkeypatch):
    """Only torch and transformers were looked for."""
    monkeypatch.setattr(base_model, "find_spec", lambda name: None if name == "peft" else True)
    with pytest.raises(ThirteenError, match="this needs peft: "):
        run_training(request_for(), run=RUN)


def test_a_base_without_the_adapted_modules_leaves_no_folder(request_for, tmp_path):
    """PEFT's ValueError ended the command."""
    from transformers import GPT2Config

    from ..checkpoints import save_model

    config = GPT2Config(vocab_size=272, n_embd=16, n_layer=1, n_head=2, n_positions=256)
    base = save_model(tmp_path / "gpt2", config, rules="llama")
    with pytest.raises(ThirteenError, match="'GPT2LMHeadModel' cannot be converted"):
        run_training(request_for(base=str(base)), run=RUN)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_the_base_is_no_output(request_for, base, tmp_path):
    """The adapter in it became a part of the base."""
    folder = shutil.copytree(base("llama"), tmp_path / "base")
    (folder / "model.gguf").touch()
    for given in (folder, folder / "model.gguf"):
        with pytest.raises(ThirteenError, match=f"{folder}: is the folder of the base"):
            run_training(request_for(base=str(given), output=folder), run=RUN)


def test_an_output_that_cannot_be_used_is_refused_before_the_base_is_loaded(request_for, tmp_path):
    (tmp_path / "README.md").write_text("A project.")
    for output, message in (
        (tmp_path, r"README\.md: is not of an adapter, and would be overwritten"),
        (tmp_path / "README.md" / "out", r"README\.md is a file, not a folder"),
    ):
        with pytest.raises(ThirteenError, match=message):
            run_training(request_for(base="nowhere", output=output), run=RUN)


def test_worked_solutions_become_a_lora_with_a_card(request_for, tmp_path):
    request = request_for(rank=2, learning_rate=0.01, batch_rows=4, max_tokens=200, max_rows=7)
    result = run_training(request, "thirteen train …", RUN)
    assert (result.trained_numbers, result.rows, len(result.validation)) == (4_096, 7, 3)
    held = result.held_out
    assert held.loss_after < held.loss_before
    card = (tmp_path / "out/README.md").read_text()
    assert f"| before | {held.loss_before:.4f} |" in card and "| learning_rate | 0.01 |" in card
    assert "thirteen train …" in card and "of rows.jsonl" in card
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (2, 16, "none")
    with pytest.raises(OutputError, match=r"out: has adapter_config\.json, which would be"):
        run_training(request, run=RUN)


def test_a_basis_with_groups_is_trained_by_its_file(request_for, base, tmp_path):
    checkpoint, file = open_checkpoint(base("llama")), tmp_path / "basis.safetensors"
    write_basis(make_basis(checkpoint, BasisOrigin("tiny", checkpoint.sha256(), numbers=8, groups=2)), file)
    result = run_training(
        request_for(kind="tinylora", basis=file, final_line=False, calculator=True), run=RUN
    )
    assert result.trained_numbers == 8
    numbers = read_tinylora_numbers(tmp_path / "out", read_basis(file))
    assert numbers.shape == (8,) and numbers[:4].any() and numbers[4:].any()
    card = (tmp_path / "out/README.md").read_text()
    assert "the answer ends in" not in card and "| numbers | 8 |" in card


def test_the_basis_of_another_base_is_refused(request_for, base, tmp_path):
    checkpoint, file = open_checkpoint(base("qwen2")), tmp_path / "basis.safetensors"
    write_basis(make_basis(checkpoint, BasisOrigin("other", checkpoint.sha256())), file)
    with pytest.raises(ThirteenError, match="the basis is of other: its"):
        run_training(request_for(kind="tinylora", basis=file), run=RUN)
    assert not (tmp_path / "out").exists()
