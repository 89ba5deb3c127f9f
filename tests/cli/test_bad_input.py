"""Bad input ends in exit status 2 and one line that names the input and the conflicting numbers.

Each row is a damage to good inputs, a command line, and a part of the expected line: one for each kind of
error. Commands run in a forked process; they must leave nothing at the target or next to it. Other damages
are in the tests of the modules that read the inputs.
"""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig, TinyLoraConfig
from safetensors.numpy import load_file, save_file

from ..convert.peft_adapters import save_random_adapter
from ..json_changes import change_json
from ..runtime.conftest import typed, write_gguf
from ..runtime.gguf_adapters import write_lora

Damage = Callable[[Path], Any]

CONFIG, WEIGHTS, INDEX = "BASE/config.json", "BASE/model.safetensors", "SHARDS/model.safetensors.index.json"
LORA, LORA_CONFIG = "LORA/adapter_model.safetensors", "LORA/adapter_config.json"
Q = "model.layers.0.self_attn.q_proj.weight"
LORA_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LORA_B = LORA_A.replace("lora_A", "lora_B")
HOSTILE = "{{ cycler.__init__.__globals__.os.popen('touch MARK') }}"
PLACES = re.compile(r"\b(BASE|SHARDS|OTHER|LORA|DORA|TINY|MODEL|GGUF_LORA|SCHEMA)\b")


def nothing(_):
    """Leave the inputs as they are."""


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def delete(name):
    return lambda folder: (folder / name).unlink()


def cut(name, count):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-count])


def edit(name, change):
    return lambda folder: change_json(folder / name, change)


def arrays(name, change):
    """Change the arrays of a safetensors file."""

    def damage(folder):
        tensors = {key: array.copy() for key, array in load_file(folder / name).items()}
        change(tensors)
        save_file(tensors, folder / name)

    return damage


def text_key(key, value):
    """Change the model's metadata."""
    return lambda folder: write_gguf(folder / "MODEL", {key: typed(value)}, {})


def set_all(name, value):
    return lambda tensors: [array.fill(value) for key, array in tensors.items() if name in key]


CONVERT, SHOW, ASK = "convert BASE -o OUT/m.gguf", "adapter LORA", "ask MODEL Why?"
MERGE = "convert BASE --adapter LORA -o OUT/m.gguf"
ROWS: list[tuple[Damage, str, str]] = [
    # Checkpoints
    (cut(WEIGHTS, 100), CONVERT, "file not fully covered"),
    (delete(CONFIG), CONVERT, "this one no config.json"),
    (arrays(WEIGHTS, lambda a: a.pop(Q)), CONVERT, f"tensor {Q!r} is missing"),
    (
        arrays(WEIGHTS, lambda a: a.update({Q: a[Q][:48].copy()})),
        CONVERT,
        "(48, 64); the model's configuration says (96, 64)",
    ),
    (arrays(WEIGHTS, set_all(Q, np.nan)), CONVERT, f"{Q!r}: holds a value that is not finite"),
    (arrays(WEIGHTS, set_all(Q, 7e4)), f"{CONVERT} --type F16", f"{Q!r}: holds 70000, more than"),
    (
        edit(INDEX, lambda i: i["weight_map"].update({Q: "../../etc/passwd"})),
        "convert SHARDS -o OUT/m.gguf",
        "SHARDS/passwd: No such file or directory",
    ),
    # Adapters
    (delete(LORA_CONFIG), SHOW, "not a PEFT adapter: adapter_config.json is missing"),
    (edit(LORA_CONFIG, lambda c: c.update(peft_type="PROMPT_TUNING")), SHOW, "PROMPT_TUNING"),
    (edit(LORA_CONFIG, lambda c: c.update(r=5)), SHOW, "with r = 5 of adapter_config.json"),
    (put(LORA, b"version https://git-lfs"), SHOW, "header too large"),
    (arrays(LORA, set_all(LORA_A, np.nan)), SHOW, "self_attn.q_proj' is not finite"),
    (arrays(LORA, set_all("lora_B", 0)), MERGE, "every delta is zero"),
    (arrays(LORA, lambda a: a.pop(LORA_B)), SHOW, "has lora_A (4, 64); expected lora_A (r, in), "),
    (arrays(LORA, set_all("lora", 3e38)), MERGE, "not finite"),
    (nothing, "convert OTHER --adapter LORA -o OUT/m.gguf", "it was trained on another model"),
    (nothing, "adapter DORA --base BASE -o OUT/lora.gguf", "DoRA rescales the base's rows: only a merge can"),
    # Models
    (cut("MODEL", 100), ASK, "it is truncated"),
    (text_key("general.architecture", "mamba"), ASK, "'mamba.block_count' is missing"),
    (text_key("tokenizer.chat_template", HOSTILE), ASK, "failed: SecurityError"),
    (put("SCHEMA", b"{"), f"{ASK} --schema SCHEMA", "schema: Expecting property name"),
    # Command lines
    (nothing, "bench latancy MODEL MODEL", "No such command 'latancy'"),
    (nothing, "convert", "Missing argument 'BASE'"),
    (nothing, f"{ASK} --threads 9999", "Invalid value for '--threads'"),
    (nothing, f"{ASK} --gpu-layers 1.5", "Invalid value for '--gpu-layers'"),
    (nothing, f"{ASK} --context 4", "tokens, but the context holds 4"),
    (nothing, "ask MODEL what is this", "not 4 arguments: quote the question"),
    (nothing, "convert BASE", "--output: missing"),
    (nothing, "convert BASE -o OUT/x.gguf --dry-run", "--output: --dry-run writes no file"),
    (nothing, "convert llama-3.2-1b -o OUT/x --to-safetensors --size 1MB", "--size: is for a GGUF"),
    (nothing, "convert nothing-13 -o OUT/x.gguf", "no base 'nothing-13'"),
    (nothing, "convert llama-3.2-1b -o OUT/x.gguf --type Q9", "--type 'Q9': no such type; supported: F32"),
    (nothing, f"{CONVERT} --size 1KB", "--size 1KB: cannot be met"),
    (nothing, f"{CONVERT} --prefer speed", "--prefer: requires --size"),
    (nothing, "adapter LORA --code -o OUT/x", "--output: a code is printed"),
    (nothing, "web MODEL --out OUT/x --port 0", "--port: requires --serve"),
    (nothing, "bench MODEL --data svamp", "--data: requires --quick"),
    (nothing, "bench MODEL --quick --rounds 9", "--rounds: not with --quick"),
    (nothing, "bench MODEL --peers --adapter GGUF_LORA", "--adapter: not with --peers"),
    (nothing, "batch OUT/x.jsonl qwen2.5-0.5b", "x.jsonl: No such file"),  # before a download
    (nothing, "models --remove nothing-13", "'nothing-13' is not in the cache, which has no models"),
    # Outputs
    (nothing, "convert BASE -o OUT/none/m.gguf", "/none does not exist"),
    (nothing, "convert BASE -o BASE/model.safetensors", "is an input of this command"),
]


@pytest.fixture(scope="module")
def good(base, tmp_path_factory):
    """A folder of good inputs: checkpoints, adapters of BASE, a model and a run-time adapter of it."""
    folder = tmp_path_factory.mktemp("good")
    for name, family in {"BASE": "llama", "SHARDS": "llama bf16 in shards", "OTHER": "qwen2"}.items():
        shutil.copytree(base(family), folder / name)
    modules = ["q_proj", "up_proj"]
    configs = {
        "LORA": LoraConfig(r=4, lora_alpha=6, target_modules=modules),
        "DORA": LoraConfig(r=4, use_dora=True, target_modules=modules),
        "TINY": TinyLoraConfig(u=13, r=2, weight_tying=1.0, target_modules=modules),
    }
    for name, config in configs.items():
        save_random_adapter(folder / "BASE", config, folder / name, step=1.0 if name == "TINY" else 0.2)
    write_gguf(folder / "MODEL", {}, {})
    write_lora(folder / "GGUF_LORA", 1)
    return folder


@pytest.fixture
def out(tmp_path):
    """An empty output folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def run(thirteen, tmp_path, out, good):
    """run(line, damage): run a command on inputs with a damage."""

    def run(line, damage=nothing, **options):
        shutil.copytree(good, inputs := tmp_path / "inputs", dirs_exist_ok=True)
        damage(inputs)
        words = [PLACES.sub(lambda name: str(inputs / name[1]), word) for word in shlex.split(line)]
        return thirteen(*(word.replace("OUT", str(out)) for word in words), **options)

    return run


def check_refused(done, message, out):
    line = done.error.strip()
    assert message in line and line.isprintable() and len(line) < 1000, done
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(("damage", "line", "message"), ROWS, ids=[f"{row[1]}-{row[2]}"[:60] for row in ROWS])
def test_bad_input_is_one_line(damage, line, message, run, out):
    check_refused(run(line, damage), message, out)
    assert not Path("MARK").exists()


def test_questions_of_standard_input_are_checked(run, out):
    for content, message in ((b" \n", "the question is missing"), (b"\xff", "standard input: not UTF-8")):
        check_refused(run("ask MODEL -", stdin=content), message, out)


def test_an_input_is_refused_as_a_target_under_any_name(run, out, tmp_path):
    run("models MODEL")  # makes the inputs
    (tmp_path / "other-name.gguf").hardlink_to(tmp_path / "inputs/MODEL")
    for name in ("MODEL", "OUT/../other-name.gguf"):
        check_refused(run(f"convert MODEL -o {name} --force"), "is an input of this command", out)


def test_a_file_that_cannot_grow_leaves_nothing(run, out):
    """The limits are in the header, in the metadata and in the tensors; the error line fits in each."""
    line = "convert BASE -o OUT/model.gguf --type F16 --force"
    for limit in (400, 9_000, 100_000):
        check_refused(run(line, file_limit=limit), "model.gguf: cannot write: File too large", out)
    assert run(line).status == 0
    before = (out / "model.gguf").read_bytes()
    assert run(line, file_limit=9_000).status == 2
    assert {path: path.read_bytes() for path in out.iterdir()} == {out / "model.gguf": before}


@pytest.mark.parametrize(
    "line", ["convert BASE", "adapter LORA --base BASE", "bench report LORA/adapter_config.json"]
)
def test_an_output_that_exists_is_replaced_with_force_only(line, run, out):
    (output := out / "model.gguf").write_text("mine")
    assert "exists already; --force overwrites it" in run(f"{line} -o OUT/model.gguf").error
    assert output.read_text() == "mine"
    assert "exists already" not in run(f"{line} -o OUT/model.gguf --force").stderr


GOOD = [
    *(f"convert {name} -o OUT/m.gguf --type Q8_0" for name in ("BASE", "SHARDS", "OTHER", "MODEL")),
    *(f"{CONVERT} --adapter {name} --no-fidelity --type F32" for name in ("LORA", "DORA", "TINY")),
    *(SHOW, "adapter TINY --base BASE -o OUT/lora.gguf", f"{ASK} --max-tokens 3 --adapter GGUF_LORA --json"),
]


@pytest.mark.parametrize("line", GOOD)
def test_good_input_is_taken(line, run):
    """So each refusal above is due to the damage."""
    done = run(line)
    assert (done.status, done.stderr) == (0, ""), done
