"""lm-evaluation-harness: its log-likelihoods are the engine's."""

import json

import pytest
from thirteen.files.gguf.header import read_header

from ...json_lines import write_rows

pytestmark = pytest.mark.slow

# `{data}` is the file of a task's questions.
CHOICES = """
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{{{country}}}} is"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""
CAPITALS = {"France": ("Paris", "Rome"), "Italy": ("Rome", "Paris"), "Japan": ("Tokyo", "Zürich")}


@pytest.fixture(scope="module")
def tokenizer(smollm2, tmp_path_factory):
    """Folder of the tokenizer of a model file, as transformers reads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    metadata = read_header(smollm2).metadata
    tokens = [*metadata["tokenizer.ggml.tokens"]]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    types = [*metadata["tokenizer.ggml.token_type"]]
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, types, strict=True) if kind == 3])
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("as_tokens", [True, False])
def test_log_likelihoods_are_the_engines(smollm2_server, tokenizer, as_tokens, tmp_path, monkeypatch):
    import datasets
    import lm_eval
    import lm_eval.tasks

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    rows = [{"country": country, "choices": choices} for country, choices in CAPITALS.items()]
    write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "task.yaml").write_text(CHOICES.format(data=tmp_path / "rows.jsonl"))
    manager = lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
    arguments = {
        "model": "smollm2",
        "base_url": f"{smollm2_server.url}/v1/completions",
        "tokenizer": str(tokenizer),
        "tokenizer_backend": "huggingface",
        "tokenized_requests": as_tokens,
        "max_retries": 1,
    }
    given = {"model": "local-completions", "model_args": arguments, "bootstrap_iters": 0}
    found = lm_eval.simple_evaluate(tasks=["capitals"], task_manager=manager, **given)
    engine, right = smollm2_server.service.engine, []
    for sample in found["samples"]["capitals"]:
        context = engine.encode_text(f"The capital of {sample['doc']['country']} is")
        pairs = [(context, engine.encode_text(f" {name}")) for name in sample["doc"]["choices"]]
        expected = [_log_likelihood(engine, *pair) for pair in pairs]
        assert [float(score) for score, _ in sample["filtered_resps"]] == pytest.approx(expected, abs=0.05)
        right.append(expected[0] > expected[1])
    assert len(right) == len(rows)
    assert found["results"]["capitals"]["acc,none"] == pytest.approx(sum(right) / len(right))


def _log_likelihood(engine, context, continuation):
    found = engine.prompt_logprobs([*context, *continuation])  # of all tokens but the first
    return sum(entry.logprob for entry in found[len(context) - 1 :])
