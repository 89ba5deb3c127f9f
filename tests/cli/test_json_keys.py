"""The keys of `--json` are an interface: each command has the recorded ones.

Commands that print a report are checked by the type of the report, the others by a run on a tiny model.
After an intended change, `RECORD_JSON_KEYS=1 pytest tests/cli`
updates the record.
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from peft import LoraConfig
from thirteen.convert.adapter.short_code import ShortCode, encode_short_code
from thirteen.runtime.arithmetic import Step

from ..commands import Commands
from ..conftest import EXHAUSTIVE
from ..convert.peft_adapters import save_random_adapter

pytestmark = pytest.mark.slow

RECORD = Path(__file__).parents[1] / "data" / "json_keys.json"
REPORTS = {
    "bench accuracy": "bench.accuracy.accuracy.AccuracyReport",
    "bench fidelity": "bench.fidelity.fidelity_report.FidelityReport",
    "bench latency": "bench.latency.LatencyReport",
    "bench latency --peers": "bench.peers.PeersReport",
    "bench tune": "bench.tune.TuneReport",
    "web": "web.site.Site",
}
BY_DATA = {
    *("types", "norm_by_layer", "tally.votes", "memory", "metadata", "provenance", "tokenizer")
}  # objects whose keys are names out of the data
ROWS = [
    {"question": f"What is {n} and {n}?", "solution": f"{n} + {n} = {2 * n}", "answer": str(2 * n)}
    for n in range(2, 32)
]


def keys_of_type(type_: Any, prefix: str = "") -> Iterator[str]:
    origin = get_origin(type_) or type_
    if is_dataclass(origin):
        hints = get_type_hints(origin, localns={"Step": Step})  # imported for types only where it is named
        parameters = dict(zip(getattr(origin, "__parameters__", ()), get_args(type_), strict=False))
        for field in fields(origin):
            yield f"{prefix}{field.name}"
            hint = hints[field.name]
            arguments = [parameters.get(one, one) for one in get_args(hint)] or [parameters.get(hint, hint)]
            within = "*." if get_origin(hint) in (dict, Mapping) else ""
            for one in arguments if get_origin(hint) else [parameters.get(hint, hint)]:
                yield from keys_of_type(one, f"{prefix}{field.name}.{within}")
    else:
        for one in get_args(type_):
            yield from keys_of_type(one, prefix)


def keys_of_value(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            name = "*" if prefix.rstrip(".") in BY_DATA else key
            yield f"{prefix}{name}"
            yield from keys_of_value(item, f"{prefix}{name}.")
    if isinstance(value, list):
        for item in value:
            yield from keys_of_value(item, prefix)


def recorded(command: str, keys: Iterator[str]) -> None:
    found = sorted(set(keys))
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if os.environ.get("RECORD_JSON_KEYS"):
        RECORD.write_text(json.dumps(record | {command: found}, indent=1, sort_keys=True) + "\n")
        return
    assert found == record[command]


@pytest.mark.parametrize("command", REPORTS)
def test_a_report_has_the_recorded_keys(command):
    module, _, name = REPORTS[command].rpartition(".")
    recorded(command, keys_of_type(getattr(import_module(f"thirteen.{module}"), name)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "texts.jsonl").write_text(json.dumps({"text": "Three pens cost $3.60. " * 30}) + "\n")
    return folder


ADAPTER = "smollm2-135m-sums-13"
CODE = ShortCode("tiny", "qqqqqq", np.zeros(13, np.float32))
TRAIN = shlex.split("--epochs 1 --batch-rows 8 --max-tokens 64 --held-out 4 --threads 1")


def test_printed_json_has_the_recorded_keys(base, folder, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(folder / "cache"))
    tiny = base("llama")
    model = folder / "model.gguf"
    texts, rows = folder / "texts.jsonl", folder / "rows.jsonl"
    config = LoraConfig(r=2, target_modules=["q_proj"])
    lora = save_random_adapter(tiny, config, folder / "lora")
    lines: dict[str, tuple[object, ...]] = {
        "convert": ("convert", tiny, "--type", "F16", "-o", model),
        "models MODEL": ("models", model),
        "convert --dry-run": (
            *("convert", tiny, "--dry-run", "--size", "6.5bpw", "--target", "any"),
            *("--texts", texts, "--threads", 1),
        ),
        "ask": ("ask", model, "What is 2 + 2?", "--max-tokens", 4, "--threads", 1),
        "ask --effort": ("ask", model, "2?", "--effort", "medium", "--max-tokens", 4, "--threads", 1),
        "batch": ("batch", rows, model, "--out", folder / "answers.jsonl", "--max-tokens", 4, "--threads", 1),
        "convert --to-safetensors": (
            *("convert", tiny, "--adapter", lora, "--to-safetensors", "-o", folder / "merged"),
        ),
        "adapter": ("adapter", ADAPTER),
        "adapter CODE": ("adapter", encode_short_code(CODE)),
        "models": ("models",),
        "doctor": ("doctor",),
        "adapter --output": ("adapter", lora, "--base", tiny, "-o", folder / "lora.gguf"),
    }
    if EXHAUSTIVE:  # torch takes half of the time
        lines["train"] = ("train", tiny, "--data", rows, "-o", folder / "trained", *TRAIN)
    with Commands() as thirteen:
        for command, words in lines.items():
            done = thirteen(*words, "--json")
            assert done.status == 0 or command == "doctor", (command, done.stderr)
            recorded(command, keys_of_value(json.loads(done.stdout)))
