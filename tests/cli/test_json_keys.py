"""The keys of `--json` are an interface: each command has the recorded ones.

After an intended change, `RECORD_JSON_KEYS=1 pytest tests/cli/test_json_keys.py` updates the record.
"""

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from thirteen.convert.adapter.short_code import ShortCode, encode_short_code

from ..conftest import EXHAUSTIVE
from ..json_lines import write_rows
from ..runtime.conftest import EMBEDDING, write_gguf

pytestmark = pytest.mark.slow

RECORD = Path(__file__).parents[1] / "data" / "json_keys.json"
BY_DATA = {
    *("types", "tally.votes", "memory", "metadata", "provenance", "tokenizer")
}  # objects whose keys are names out of the data
ROWS = [
    {"question": f"What is {n} and {n}?", "solution": f"{n} + {n} = {2 * n}", "answer": str(2 * n)}
    for n in range(2, 32)
]
CODE = encode_short_code(ShortCode("tiny", "qqqqqq", np.zeros(13, np.float32)))
ROLES = ("reference", "shipped", "base", "shipped_base", "adapted")
LINES = {
    "convert": "convert TINY --type F16 -o OUT/model.gguf",
    "convert --dry-run": "convert TINY --dry-run --size 6.5bpw --target any --texts TEXTS --threads 1",
    "convert --to-safetensors": "convert TINY --adapter LORA --to-safetensors -o OUT/merged",
    "models": "models",
    "models MODEL": "models MODEL",
    "ask": "ask MODEL 'What is 2 + 2?' --max-tokens 4 --threads 1",
    "ask --effort": "ask MODEL 2? --effort medium --max-tokens 4 --threads 1",
    "batch": "batch ROWS MODEL --out OUT/answers.jsonl --max-tokens 4 --threads 1",
    "adapter": "adapter smollm2-135m-sums-13",
    "adapter CODE": f"adapter {CODE}",
    "adapter --output": "adapter LORA --base TINY -o OUT/lora.gguf",
    "doctor": "doctor",
    "bench fidelity": "bench fidelity reference shipped --base base --shipped-base shipped_base --tokens 4 "
    "--data QUESTION --threads 1",
    "bench accuracy": "bench accuracy adapted --base base --data QUESTION --timed 2 --max-tokens 2",
    "bench latency": "bench base adapted --prompt-tokens 8 --decode-tokens 2 --threads 1",
}
if EXHAUSTIVE:  # torch takes half of the time
    LINES["train"] = (
        "train TINY --data ROWS -o OUT/trained --epochs 1 --batch-rows 8 --max-tokens 64 --held-out 4 "
        "--threads 1"
    )


@pytest.fixture(scope="module")
def places(base, my_lora, tmp_path_factory):
    """Inputs by name, among them different models, each named after its role, and a folder of outputs."""
    folder = tmp_path_factory.mktemp("json")
    for number, role in enumerate(ROLES):
        norm = np.full(EMBEDDING, 1 + number / 8, np.float32)
        write_gguf(folder / role, {}, {"output_norm.weight": norm})
    (folder / "out").mkdir()
    return {
        **{role: folder / role for role in ROLES},
        "TINY": base("llama"),
        "LORA": my_lora,
        "MODEL": write_gguf(folder / "model.gguf", {}, {}),
        "ROWS": write_rows(folder / "rows.jsonl", ROWS),
        "QUESTION": write_rows(folder / "question.jsonl", [{"question": "1 + 1?", "answer": "2"}]),
        "TEXTS": write_rows(folder / "texts.jsonl", [{"text": "Three pens cost $3.60. " * 30}]),
        "OUT": folder / "out",
    }


def keys_of(value, prefix=""):
    if isinstance(value, dict):
        for key, item in value.items():
            name = "*" if prefix.rstrip(".") in BY_DATA else key
            yield f"{prefix}{name}"
            yield from keys_of(item, f"{prefix}{name}.")
    if isinstance(value, list):
        for item in value:
            yield from keys_of(item, prefix)


@pytest.mark.parametrize("command", LINES)
def test_printed_json_has_the_recorded_keys(command, thirteen, places):
    """And a benchmark's file has the role of its place on the command line, or of its option."""
    words = [
        "/".join(str(places.get(part, part)) for part in word.split("/"))
        for word in shlex.split(LINES[command])
    ]
    done = thirteen(*words, "--json")
    assert done.status == 0 or command == "doctor", done.stderr
    report = json.loads(done.stdout)
    for role in {*ROLES} & {*LINES[command].split()} & report.keys():
        assert report[role].get("file", report[role])["path"] == str(places[role])
    found, record = sorted(set(keys_of(report))), json.loads(RECORD.read_text())
    if os.environ.get("RECORD_JSON_KEYS"):
        RECORD.write_text(json.dumps(record | {command: found}, indent=1, sort_keys=True) + "\n")
    else:
        assert found == record[command]
