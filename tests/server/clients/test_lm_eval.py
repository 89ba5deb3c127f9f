"""lm-evaluation-harness: its log-likelihoods are the engine's, its accuracy is that of our benchmark."""

import json
from contextlib import ExitStack

import pytest
from thirteen.bench.accuracy.accuracy import run_accuracy
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.prompts import PROMPTS, Prompt
from thirteen.bench.accuracy.run_config import PromptSettings, RunConfig
from thirteen.files.gguf.header import read_header

from ..serving import serve_engine

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

SUMS = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
num_fewshot: {count}
fewshot_config: {{sampler: first_n, samples: {shots}}}
generation_kwargs: {{until: [], max_gen_toks: {tokens}, do_sample: false, calculator: {calculator}}}
filter_list:
  - name: last-number
    filter:
      - {{function: regex, group_select: -1, regex_pattern: '-?[0-9][0-9,]*'}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, regexes_to_ignore: [","]}}
"""
SHOTS = (("What is 3 plus 5?", "3 + 5 = 8"), ("What is 12 minus 4?", "12 - 4 = 8"))
COUNT, TOKENS = 50, 32


@pytest.fixture(scope="module")
def lm_eval(offline):
    import lm_eval
    import lm_eval.tasks

    return lm_eval


@pytest.fixture
def evaluate(lm_eval, tmp_path, monkeypatch):
    """evaluate(task, rows, …): the results of a task of its own; `fields` go into its YAML."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")

    def run(task, rows, model, arguments, *, chat=False, **fields):
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "task.yaml").write_text(task.format(data=data, **fields))
        manager = lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
        (name,) = manager.all_tasks
        results = lm_eval.simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=[name],
            task_manager=manager,
            apply_chat_template=chat,
            bootstrap_iters=0,
        )
        return results["results"][name], results["samples"][name]

    return run


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
def test_log_likelihoods_are_the_engines(evaluate, smollm2_server, tokenizer, as_tokens):
    rows = [{"country": country, "choices": choices} for country, choices in CAPITALS.items()]
    arguments = {
        "model": "smollm2",
        "base_url": f"{smollm2_server.url}/v1/completions",
        "tokenizer": str(tokenizer),
        "tokenizer_backend": "huggingface",
        "tokenized_requests": as_tokens,
        "max_retries": 1,
    }
    results, samples = evaluate(CHOICES, rows, "local-completions", arguments)
    assert len(samples) == len(rows)
    engine, right = smollm2_server.service.engine, []
    for sample in samples:
        context = engine.encode_text(f"The capital of {sample['doc']['country']} is")
        pairs = [(context, engine.encode_text(f" {name}")) for name in sample["doc"]["choices"]]
        expected = [sum(scores) for scores in engine.log_likelihoods(pairs)]
        found = [float(score) for score, _ in sample["filtered_resps"]]
        assert found == pytest.approx(expected, abs=0.05)
        greedy = [_is_greedy(engine, *pair) for pair in pairs]
        assert [str(flag) == "True" for _, flag in sample["filtered_resps"]] == greedy
        right.append(expected[0] > expected[1])
    assert results["acc,none"] == pytest.approx(sum(right) / len(right))


def _is_greedy(engine, context, continuation):
    likeliest = engine.logits([*context, *continuation])[len(context) - 1 : -1].argmax(axis=1)
    return likeliest.tolist() == [*continuation]


def record_requests(engine, monkeypatch):
    """The requests that reach the engine from now on."""
    recorded, submit_all = [], engine.submit_all

    def record(requests, *, wait=False):
        recorded.extend(requests)
        return submit_all(requests, wait=wait)

    monkeypatch.setattr(engine, "submit_all", record)
    return recorded


def sums():
    """Questions of one step, with answers; the model takes the last kind for the opposite difference."""
    for n in range(COUNT):
        first, second = 7 * n % 40 + 35, 11 * n % 30 + 2
        kinds = (
            (f"What is {first} plus {second}?", first + second),
            (f"What is {first} times {second}?", first * second),
            (f"What is {second} less than {first}?", first - second),
        )
        question, answer = kinds[n % len(kinds)]
        yield {"question": question, "answer": str(answer)}


def evaluate_sums(evaluate, server, rows, **options):
    arguments = {"model": "smollm2", "base_url": f"{server.url}/v1/chat/completions", "max_retries": 1}
    shots = json.dumps([{"question": question, "answer": answer} for question, answer in SHOTS])
    fields = {"count": len(SHOTS), "shots": shots, "calculator": "true"} | options
    return evaluate(SUMS, rows, "local-chat-completions", arguments, chat=True, **fields)


def test_the_accuracy_is_that_of_our_benchmark(evaluate, smollm2, tmp_path, monkeypatch):
    """The prompts have the same tokens; how an answer is read is the harness's own filter."""
    monkeypatch.setitem(PROMPTS, "2-shot", Prompt("2-shot", shots=SHOTS))
    rows = [*sums()]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = PromptSettings(threads=1, prompt="2-shot", max_tokens=TOKENS)
    questions = load_question_set(str(data))
    scores = run_accuracy(smollm2, questions, settings, folder=tmp_path / "log").adapted.scores
    with ExitStack() as stack:
        engine = stack.enter_context(
            RunConfig(smollm2, None, questions, settings, tmp_path).job.load_engine()
        )
        server = stack.enter_context(serve_engine(engine, name="smollm2"))
        requests = record_requests(engine, monkeypatch)
        results, samples = evaluate_sums(evaluate, server, rows, tokens=TOKENS)
        expected = [settings.prompt_tokens(engine, row["question"]) for row in rows]
    assert {request.tokens for request in requests} == {*expected}
    assert len(samples) == scores.questions == COUNT
    assert 0 < scores.accuracy.estimate < 1
    assert results["exact_match,last-number"] == pytest.approx(scores.accuracy.estimate)
