"""Bad input ends in exit status 2 and one line that names the input and the conflicting numbers.

Each row of a table is a damage to a good input, or a command line, and a part of the expected line. Commands
run in a subprocess; they must leave nothing at the target or next to it. Other settings of a checkpoint that
are not supported are in tests/convert/source, other damages to headers and options in the tests of their own
modules.
"""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from peft import LoraConfig, TinyLoraConfig
from safetensors.numpy import load_file, save_file

from ..commands import CommandResult, Commands
from ..convert.peft_adapters import save_random_adapter
from ..runtime.conftest import write_gguf

Good = Callable[[str], Path]
Damage = Callable[[Path], Any]
Edit = Callable[[Any], Any]

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
INDEX = "model.safetensors.index.json"
LORA, LORA_CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
LORA_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LORA_B = LORA_A.replace("lora_A", "lora_B")
VECTOR = "base_model.tinylora_v.0"
U32, F32, TEXT = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT32, gguf.GGUFValueType.STRING


def table(*rows: tuple[Any, ...]) -> pytest.MarkDecorator:
    """Parametrize a test with rows of a damage or a command line, the message, and perhaps something more."""
    padded = [(*row, *[None] * (3 - len(row))) for row in rows]
    names = [re.sub(r"\W+", "-", row[1])[:40] for row in rows]
    return pytest.mark.parametrize(("bad", "message", "more"), padded, ids=names)


# Damages to a folder or a file


def put(name: str, content: str | bytes) -> Damage:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def delete(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def bytes_of(name: str, edit: Edit) -> Damage:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


def json_of(name: str, edit: Edit) -> Damage:
    def damage(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        edit(value)
        (folder / name).write_text(json.dumps(value))

    return damage


def config(**changes: Any) -> Damage:
    return json_of(CONFIG, lambda value: value.update(changes))


def token(edit: Edit) -> Damage:
    return json_of(TOKENIZER, edit)


def lora_config(**changes: Any) -> Damage:
    return json_of(LORA_CONFIG, lambda value: value.update(changes))


def arrays_of(name: str, edit: Edit) -> Damage:
    def damage(folder: Path) -> None:
        arrays = {key: array.copy() for key, array in load_file(folder / name).items()}
        edit(arrays)
        save_file(arrays, folder / name)

    return damage


def weights(edit: Edit) -> Damage:
    return arrays_of(WEIGHTS, edit)


def weight(name: str, value: float) -> Damage:
    return weights(lambda arrays: arrays[name].ravel().__setitem__(5, value))


def lora(edit: Edit) -> Damage:
    return arrays_of(LORA, edit)


def set_all(value: float) -> Damage:
    return lora(lambda arrays: [array.fill(value) for name, array in arrays.items() if "lora_B" in name])


def header(edit: Edit, name: str = WEIGHTS) -> Damage:
    """Change the header only; an edit that returns bytes replaces the whole header."""

    def damage(raw: bytes) -> bytes:
        end = 8 + int.from_bytes(raw[:8], "little")
        entries = json.loads(raw[8:end])
        text = edit(entries)
        text = text if isinstance(text, bytes) else json.dumps(entries).encode()
        return len(text).to_bytes(8, "little") + text + raw[end:]

    return bytes_of(name, damage)


def shard(name: Any) -> Damage:
    return json_of(INDEX, lambda index: index["weight_map"].update({Q: name}))


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def nothing(_: Path) -> None: ...


def module(name: str, rows: int, columns: int) -> Damage:
    """Add a module to an adapter."""
    shapes = {"lora_A": (4, columns), "lora_B": (rows, 4)}
    arrays = {
        f"base_model.model.{name}.{key}.weight": np.full(s, 0.1, np.float32) for key, s in shapes.items()
    }
    return lora(lambda old: old.update(arrays))


# GGUF files


def gguf_bytes(edit: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(edit(write_gguf(path, {}, {}).read_bytes()))


def key(name: str, value: Any, type_: Any = U32) -> Damage:
    return lambda path: write_gguf(path, {name: None if value is None else (value, type_, None)}, {})


def tensor(name: str, array: np.ndarray | None) -> Damage:
    return lambda path: write_gguf(path, {}, {name: array})


def template(source: str) -> Damage:
    return key("tokenizer.chat_template", source, TEXT)


QUERY = "blk.0.attn_q.weight"
ROPE = "rope_freqs.weight"
LOOP, END = "{%- for i in range(99999) -%}", "{%- endfor -%}"


def adapter_gguf(
    path: Path,
    changes: dict[str, Any] | None = None,
    shapes: tuple[tuple[int, int], ...] = ((2, 64), (64, 2)),
    value: float = 0.1,
) -> Path:
    """Write a GGUF LoRA for the first query of the tiny model."""
    fields = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 2.0} | (changes or {})
    writer = gguf.GGUFWriter(path, fields.pop("general.architecture", "llama"))
    for name, entry in fields.items():
        writer.add_key_value(name, entry, F32 if isinstance(entry, float) else TEXT)
    for suffix, shape in zip((".lora_a", ".lora_b"), shapes, strict=False):
        writer.add_tensor(fields.get("general.name", QUERY) + suffix, np.full(shape, value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def adapter_with(*arguments: Any, **options: Any) -> Damage:
    return lambda path: adapter_gguf(path, *arguments, **options)


@pytest.fixture(scope="module")
def good(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Good:
    """Make good inputs by name: an adapter of `llama` or `qwen2`, a model file, or a checkpoint."""
    folder = tmp_path_factory.mktemp("good")
    modules = ["q_proj", "up_proj"]
    adapters = {
        "lora": LoraConfig(r=4, lora_alpha=6, target_modules=modules),
        "dora": LoraConfig(r=4, use_dora=True, target_modules=modules),
        "embedding": LoraConfig(r=4, target_modules=["embed_tokens"]),
        "tinylora": TinyLoraConfig(u=13, r=2, weight_tying=1.0, target_modules=modules),
    }

    @cache
    def make(name: str) -> Path:
        if name == "model":
            return write_gguf(folder / "model.gguf", {}, {})
        if name in adapters:
            on = base("qwen2" if name == "embedding" else "llama")
            return save_random_adapter(
                on, adapters[name], folder / name, step=1.0 if name == "tinylora" else 0.2
            )
        return base(name)

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty output folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def check_refused(done: CommandResult, message: str, out: Path) -> None:
    assert done.status == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    line = done.stderr.strip()
    assert line.startswith("error: "), done
    assert message in line, done
    assert len(line) < 1000, "readable"
    assert line.isprintable(), done
    assert done.stdout == ""
    assert list(out.iterdir()) == []


def check_done(done: CommandResult) -> None:
    assert (done.status, done.stderr) == (0, ""), done


def damaged(good: Path, copy: Path, damage: Damage) -> Path:
    shutil.copytree(good, copy)
    damage(copy)
    return copy


@table(
    (bytes_of(WEIGHTS, lambda raw: raw[:-100]), "bytes, the file has"),
    (put(WEIGHTS, b""), f"{WEIGHTS}: a header of 0 bytes in a file of 0"),
    (bytes_of(WEIGHTS, lambda raw: bytes(8) + raw[8:]), "the header is not JSON"),
    (weights(lambda arrays: arrays.update({Q: arrays[Q].astype(np.int32)})), f"{Q!r} is I32; supported"),
    (weights(lambda arrays: arrays.pop(Q)), f"tensor {Q!r} is missing"),
    (
        weights(lambda arrays: arrays.update({Q: arrays[Q][:48].copy()})),
        "(48, 64); config.json says (96, 64)",
    ),
    (weight(Q, np.nan), f"{Q!r}: holds a value that is not finite"),
    (weight(NORM, -np.inf), f"{NORM!r}: holds a value that is not finite"),
    (weight(Q, 7e4), f"{Q!r}: holds 70000, more than", "--type F16"),
    (delete(CONFIG), "this one no config.json"),
    (put(CONFIG, b"\xff\xfe"), "config.json: not UTF-8"),
    (config(num_hidden_layers=1 << 24), "num_hidden_layers is 16777216, not an integer up to 512"),
    (delete(TOKENIZER), "tokenizer.json: No such file or directory"),
    (token(lambda value: value["added_tokens"][0].update(content=13)), "tokenizer.json: unexpected layout"),
    (lambda base: (base / WEIGHTS).rename(base / "pytorch_model.bin"), f"has neither {WEIGHTS} nor {INDEX}"),
    (shutil.rmtree, "no such file or folder"),
    (nothing, "--type 'Q9_K': no such type; supported: F32", "--type Q9_K"),
    (nothing, "Invalid value for '--threads'", "--threads 0"),
)
def test_a_bad_base_is_refused(
    bad: Damage, message: str, more: str | None, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    folder = damaged(good("llama"), tmp_path / "base", bad)
    check_refused(
        thirteen("convert", folder, "-o", out / "model.gguf", *shlex.split(more or "")), message, out
    )


@table(
    (lambda base: min(base.glob("*.safetensors")).unlink(), "-00001-of-"),
    (shard("../../etc/passwd"), "'../../etc/passwd' is not the plain name"),
    (
        json_of(INDEX, lambda i: i["weight_map"].update(extra=i["weight_map"][Q])),
        f"missing, although {INDEX} lists",
    ),
    (json_of(INDEX, lambda i: i["weight_map"].pop(Q)), f"tensor {Q!r} is missing"),
)
def test_bad_shards_are_refused(
    bad: Damage, message: str, more: None, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    folder = damaged(good("llama bf16 in shards"), tmp_path / "base", bad)
    check_refused(thirteen("convert", folder, "-o", out / "model.gguf"), message, out)


@table(
    (delete(LORA_CONFIG), "not a PEFT adapter: adapter_config.json is missing"),
    (
        lambda a: (a / LORA_CONFIG).rename(a / "prompt.json"),
        "is missing; it has a prompt alone, which `thirteen convert --prompt` takes",
    ),
    (delete(LORA), f"{LORA} is missing"),
    (lambda a: (a / LORA).rename(a / "adapter_model.bin"), "adapter_model.bin is a pickle"),
    (lora_config(peft_type="PROMPT_TUNING"), "PROMPT_TUNING"),
    (lora(lambda a: a[LORA_A].fill(np.nan)), f"{LORA_A!r} holds a value that is not finite"),
    (set_all(np.inf), "holds a value that is not finite"),
    (set_all(0), "every delta is zero"),
    (bytes_of(LORA, lambda raw: raw[:-4]), "bytes, the file has"),
    (put(LORA, "version https://git-lfs"), "a header of"),
    (lora(lambda a: a.update({LORA_A: a[LORA_A].astype(np.int8)})), f"{LORA_A!r} is I8; supported"),
    (lora(lambda a: a.update({LORA_A: np.ones((3, 64), np.float32)})), "B is (96, 4), A is (3, 64)"),
    (lora(lambda a: a.pop(LORA_B)), "has lora_A; expected lora_A, lora_B"),
    (lora_config(target_parameters=["a"]), "target_parameters is set"),
    (lora_config(r=5), "has rank 4, but adapter_config.json says 5"),
    (lora_config(target_modules=["k_proj", "v_proj"]), "which its target_modules leave out"),
    (lora_config(lora_alpha="6"), "lora_alpha is '6'"),
    (lora_config(rank_pattern={"(a*)*b": 4}), "'(a*)*b' is too complex"),
    (module("x" * 5000, 8, 8), "unknown key"),
    (lora(lambda a: a.pop(VECTOR)), "0 trained vectors for 1 groups of modules", "tinylora"),
    (
        lora(lambda a: a.update({VECTOR: np.ones(12, np.float32)})),
        "is (12,), but adapter_config.json says u = 13",
        "tinylora",
    ),
    (
        both(
            lora(lambda a: [a.pop(key) for key in list(a) if key.endswith("_P")]),
            lora_config(projection_seed=None),
        ),
        "without projections, projection_seed is None",
        "tinylora",
    ),
)
def test_a_bad_adapter_is_refused(
    bad: Damage, message: str, more: str | None, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    adapter = damaged(good(more or "lora"), tmp_path / "adapter", bad)
    check_refused(thirteen("adapter", adapter), message, out)


@table(
    (lora(lambda a: [array.fill(3e38) for array in a.values()]), "not finite"),
    (
        both(module("lm_head", 272, 64), lora_config(target_modules=None)),
        "a delta of 'lm_head.weight', but this base ties",
    ),
    (module("some module", 8, 8), "unknown key 'base_model.model.some module.lora_A.weight'"),
    (module("model.layers.7.self_attn.q_proj", 96, 64), "no tensor 'model.layers.7."),
    (nothing, "(96, 64), the base's tensor (64, 64): it was trained on another model", "qwen2"),
    (
        module("model.layers.0.self_attn.q_proj", 96, 80),
        f"the delta of {Q!r} is (96, 80), the base's tensor (96, 64)",
    ),
)
def test_an_adapter_that_does_not_fit_the_base_is_refused(
    bad: Damage, message: str, more: str | None, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    adapter = damaged(good("lora"), tmp_path / "adapter", bad)
    words = ("convert", good(more or "llama"), "--type", "F32", "--adapter", adapter, "-o", out / "m.gguf")
    check_refused(thirteen(*words), message, out)


@pytest.mark.exhaustive  # 18 seconds
def test_an_adapter_for_pefts_own_merge_that_does_not_fit_is_refused(
    thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    damage = both(lora_config(bias="all"), lora(lambda a: a.pop(LORA_B)))
    adapter = damaged(good("lora"), tmp_path / "adapter", damage)
    done = thirteen("convert", good("llama"), "--adapter", adapter, "-o", out / "m.gguf")
    check_refused(done, "1 tensors are missing or left over, such as", out)


@table(
    ("dora", "DoRA rescales the base's rows: only a merge can", "llama"),
    ("embedding", "a delta of the embedding cannot be applied at run time", "qwen2"),
    ("lora", "it was trained on another model", "qwen2"),
)
def test_an_impossible_export_is_refused(
    bad: str, message: str, more: str, thirteen: Commands, good: Good, out: Path
) -> None:
    done = thirteen("adapter", good(bad), "--base", good(more), "-o", out / "lora.gguf")
    check_refused(done, message, out)


def test_a_damaged_gguf_is_refused(thirteen: Commands, tmp_path: Path, out: Path) -> None:
    """Other damages to headers are in tests/files/gguf."""
    (model := tmp_path / "model.gguf").write_bytes(b"GGUF")
    check_refused(thirteen("inspect", model), "the header runs past the end of the file (4 bytes)", out)


@table(
    (gguf_bytes(lambda raw: raw[:-100]), "it is truncated"),
    (
        key("general.architecture", "mamba", TEXT),
        "the architecture 'mamba' cannot be converted",
        "'mamba.block_count' is missing",
    ),
    (key("llama.block_count", "two", TEXT), "'llama.block_count' is of type STRING, not UINT32"),
    (tensor(QUERY, None), f"tensor {QUERY!r} is missing", f"tensor {QUERY!r} not found"),
    (
        tensor(QUERY, np.ones((32, 64), np.float32)),
        "has the shape (32, 64); the metadata says (64, 64)",
        "has wrong shape; expected 64, 64, got 64, 32",
    ),
    (tensor(QUERY, np.ones((64, 64), np.int32)), "I32, which is not dequantized", ""),
    (
        tensor(QUERY, np.full((64, 64), np.nan, np.float32)),
        "value that is not finite",
        "logits are not finite",
    ),
    (tensor(ROPE, np.ones(8, np.int32)), "I32, which is not dequantized", ""),
    (
        tensor(ROPE, np.full(8, np.nan, np.float32)),
        "value that is not finite",
        "logits are not finite numbers",
    ),
    (adapter_gguf, "a GGUF LoRA is an adapter", "is an adapter, not a model"),
)
def test_a_gguf_of_an_impossible_model_is_refused(
    bad: Damage, message: str, more: str | None, thirteen: Commands, tmp_path: Path, out: Path
) -> None:
    """All headers but the first are valid. The message of `ask` may be another than that of `convert`.

    What would end the process of `ask` is in tests/runtime/test_trial.py.
    """
    bad(model := tmp_path / "model.gguf")
    check_refused(thirteen("convert", model, "-o", out / "x.gguf"), message, out)
    if more != "":
        check_refused(thirteen("ask", model, "Why?"), more or message, out)


@table(
    (template("{% if %}"), "model.gguf: the chat template cannot be compiled"),
    (key("tokenizer.chat_template", 13), "'tokenizer.chat_template' is not a string"),
    (template("{{" + "(" * 20000 + "1"), "the chat template cannot be compiled"),
    (template("{{ cycler.__init__.__globals__.os.popen('touch MARK').read() }}"), "failed: SecurityError"),
    (template("{{ raise_exception('no\x1b[2Jway\n2') }}"), "TemplateError: no [2Jway 2"),
    (template(LOOP * 3 + "{{ 'abc' * 100 }}" + END * 3), "it has written more than 4194304 characters"),
)
def test_a_hostile_chat_template_is_refused(
    bad: Damage, message: str, more: None, thirteen: Commands, tmp_path: Path, out: Path
) -> None:
    """Others are in tests/runtime/prompt."""
    bad(model := tmp_path / "model.gguf")
    check_refused(thirteen("ask", model, "Why?"), message, out)
    assert not Path("MARK").exists()


@table(
    (lambda path: write_gguf(path, {}, {}), "is a model, not an adapter"),
    (lambda path: path.write_bytes(adapter_gguf(path).read_bytes()[:-8]), "it is truncated"),
    (adapter_with({"general.architecture": "qwen2"}), "model arch and LoRA arch mismatch"),
    (adapter_with({"adapter.type": "ia3"}), "expect adapter.type to be 'lora', but got: ia3"),
    (adapter_with(shapes=((2, 80), (80, 2))), f"tensor {QUERY!r} has incorrect shape"),
    (adapter_with({"general.name": "blk.9.attn_q.weight"}), "which the base model does not have"),
    (adapter_with(shapes=((2, 64),)), "is missing one component"),
    (adapter_with(value=np.nan), "logits are not finite numbers"),
    (adapter_with({"adapter.lora.alpha": float("inf")}), "logits are not finite numbers"),
)
def test_a_bad_run_time_adapter_is_refused(
    bad: Damage, message: str, more: None, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    bad(adapter := tmp_path / "adapter.gguf")
    check_refused(thirteen("ask", good("model"), "Why?", "--adapter", adapter), message, out)


@table(
    ("frobnicate", "No such command 'frobnicate'"),
    ("convert", "Missing argument 'BASE'"),
    ("convert BASE", "--output: missing"),
    ("convert nothing-13 -o OUT/x.gguf", "no base 'nothing-13'"),
    ("convert '' -o OUT/x.gguf", "'': no such file or folder"),
    ("convert llama-3.2-1b -o OUT/x.gguf --type Q9", "--type 'Q9': no such type"),
    ("convert llama-3.2-1b -o OUT/none/x.gguf", "/none does not exist"),
    ("convert llama-3.2-1b -o OUT/x.gguf --importance OUT/none/x", "/none does not exist"),
    ("convert llama-3.2-1b -o OUT/x.gguf --dry-run", "--output: --dry-run writes no file"),
    ("convert llama-3.2-1b -o OUT/x --to-safetensors --size 1MB", "--size: is for a GGUF"),
    ("convert BASE -o OUT/x.gguf --calibration most", "--calibration 'most': must be one of quick, normal"),
    ("convert BASE -o OUT/x.gguf --vocabulary 12", "of 12 tokens: 261 must stay"),
    ("convert BASE -o OUT/x.gguf --type F16 --texts BASE/config.json", "--texts: nothing is rounded"),
    ("convert embedded@v1 -o OUT/x.gguf", "the revision 'v1' applies only to the hub"),
    ("convert BASE -o OUT/x.gguf --size 600", "--size '600': "),
    ("convert BASE -o OUT/x.gguf --vocabulary auto", "--vocabulary auto: requires --size"),
    ("convert BASE -o OUT/x.gguf --vocabulary auto --size 4.5bpw", "requires a size in bytes, such as 600MB"),
    ("convert BASE -o OUT/x.gguf --prefer speed", "--prefer: requires --size"),
    ("convert BASE -o OUT/x.gguf --importance MODEL --texts BASE/config.json", "so none is measured"),
    ("convert llama-3.2-1b -o OUT/m --to-safetensors", "--adapter: missing"),
    ("adapter nothing-13", "no adapter 'nothing-13'"),
    ("adapter MODEL", "not a PEFT adapter"),
    ("adapter BASE --code -o OUT/x", "--output: a code is printed"),
    ("adapter BASE --force", "--force: requires --output"),
    ("adapter BASE -o OUT/x.gguf", "--base: missing"),
    ("train BASE --data BASE/x --kind dora -o OUT/x", "'dora' is not one of 'lora', 'tinylora'"),
    ("inspect OUT/x.gguf", "x.gguf': no such file or folder"),
    ("inspect OUT", "a model's folder has config.json, tokenizer.json and *.safetensors"),
    ("inspect nothing-13", "no base 'nothing-13'"),
    ("models --remove nothing-13", "'nothing-13' is not in the cache, which has no models"),
    ("doctor --model BASE/config.json", "not a GGUF file"),
    ("bench tune BASE/config.json", "not a GGUF file"),
    ("web MODEL --out OUT/x --port 0", "--port: requires --serve"),
    ("web MODEL --serve --json", "--json: requires --out"),
    ("batch OUT/x.jsonl qwen2.5-0.5b", "x.jsonl: No such file"),  # and so on, before a download
    ("ask qwen2.5-0.5b Why? --adapter OUT/x/y", "x/y': no such file or folder"),
    ("convert qwen2.5-0.5b -o OUT/x.gguf --adapter OUT/x/y", "x/y': no such file or folder"),
    ("bench qwen2.5-0.5b --quick --data nothing-14", "nothing-14: no such file, and not one of the sets"),
    ("serve qwen2.5-0.5b --profile desktop", "profile must be one of laptop, server, phone, not 'desktop'"),
    ("bench nothing-13", "no base 'nothing-13'"),
    ("bench OUT/x.gguf", "x.gguf': no such file or folder"),
    ("bench latancy MODEL MODEL", "No such command 'latancy'"),
    ("bench --json", "Missing argument 'MODEL'"),
    ("bench MODEL --data svamp", "--data: requires --quick"),
    ("bench MODEL --adapter BASE/config.json", "config.json: not a GGUF file"),
    ("bench latency MODEL MODEL --rounds 1", "Invalid value for '--rounds'"),
    ("bench latency MODEL BASE/config.json", "not a GGUF file"),
    ("bench latency MODEL MODEL --adapter BASE/config.json", "config.json: not a GGUF file"),
    ("bench accuracy MODEL", "Missing option '--data'"),
    ("bench accuracy MODEL --data BASE/config.json", "config.json: line 1: not JSON"),
    ("bench accuracy MODEL --data svamp --effort most", "Invalid value for '--effort'"),
    ("ask OUT/x.gguf Why?", "x.gguf': no such file or folder"),
    ("ask MODEL ''", "the question is missing"),
    ("ask MODEL ' '", "the question is missing"),
    (f"ask MODEL '{'many words ' * 100}'", "tokens, but the context holds 256"),
    ("ask MODEL Why? --context 4", "tokens, but the context holds 4"),
    ("ask MODEL Why? --context 0", "Invalid value for '--context'"),
    ("ask MODEL Why? --temperature nan", "temperature must be a number from 0 to 1000000, not nan"),
    ("ask MODEL what is this", "not 4 arguments: quote the question"),
    ("ask MODEL Why? --threads 9999", "Invalid value for '--threads'"),
    ("ask MODEL Why? --frobnicate", "No such option: --frobnicate"),
    ("ask MODEL Why? --seed", "Option '--seed' requires an argument"),
    ("ask MODEL Why? --schema OUT/none.json", "No such file"),
    ("ask MODEL Why? --schema BASE/model.safetensors", "model.safetensors: "),
    ("ask ./nothing-13", "ask ./nothing-13: the question is missing"),
    ("batch MODEL BASE/config.json", "the questions come first"),
    ("learn BASE/x.jsonl embedded -o OUT/x", "the model comes first"),
    ("convert BASE -o OUT/x.gguf --size 1KB", "--size 1KB: cannot be met"),
)
def test_a_bad_command_line_is_refused(
    bad: str, message: str, more: None, thirteen: Commands, good: Good, out: Path
) -> None:
    places = {"BASE": str(good("llama")), "MODEL": str(good("model")), "OUT": str(out)}
    parts = [[places.get(part, part) for part in word.split("/")] for word in shlex.split(bad)]
    check_refused(thirteen(*map("/".join, parts)), message, out)


@table(
    (b"", "the question is missing"),
    (b" \n", "the question is missing"),
    (b"\xff", "standard input: not UTF-8"),
)
def test_a_bad_question_from_standard_input_is_refused(
    bad: bytes, message: str, more: None, thirteen: Commands, good: Good, out: Path
) -> None:
    check_refused(thirteen("ask", good("model"), "-", stdin=bad), message, out)


@table(
    (b"{", "schema: Expecting property name"),
    (b"\xff", "not UTF-8: invalid start byte at byte 1"),
    (b"[" * (1 << 21), "more than 65,536 bytes"),
)
def test_a_bad_schema_is_refused(
    bad: bytes, message: str, more: None, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "schema").write_bytes(bad)
    check_refused(thirteen("ask", good("model"), "Why?", "--schema", tmp_path / "schema"), message, out)


def test_an_answer_follows_its_schema(thirteen: Commands, good: Good, tmp_path: Path) -> None:
    (tmp_path / "schema").write_text('{"type": "boolean"}')
    done = thirteen("ask", good("model"), "Why?", "--schema", tmp_path / "schema", "--json")
    assert json.loads(done.stdout)["text"] in ("true", "false"), done.stderr


# Targets


@table(
    ("OUT/none/model.gguf", "/none does not exist"),
    ("BASE/config.json/model.gguf", "config.json does not exist"),
    ("OUT", "out: is a folder, not a file"),
    ("/proc/model.gguf", "/proc/model.gguf: "),
    (f"OUT/{'x' * 300}", "File name too long"),
    ("/dev/null", "/dev/null: is not a regular file"),
    ("BASE/model.safetensors", "model.safetensors: is an input of this command"),
    ("LORA/adapter_model.safetensors", "is an input of this command"),
)
def test_a_target_is_refused(
    bad: str, message: str, more: None, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    base, adapter = (shutil.copytree(good(name), tmp_path / name) for name in ("llama", "lora"))
    before = contents(tmp_path)

    def run(line: str) -> CommandResult:
        for place, path in {"OUT": out, "BASE": base, "LORA": adapter}.items():
            line = line.replace(place, str(path))
        return thirteen(*line.split())

    check_refused(run(f"convert BASE --adapter LORA -o {bad}"), message, out)
    if bad.endswith(".gguf"):
        check_refused(run(f"adapter LORA --base BASE -o {bad}"), message, out)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_base_is_refused_as_a_target(thirteen: Commands, good: Good, tmp_path: Path, out: Path) -> None:
    base = Path(shutil.copy(good("model"), tmp_path / "base.gguf"))
    (tmp_path / "other-name.gguf").hardlink_to(base)
    for name in ("base.gguf", "other-name.gguf", "out/../base.gguf"):
        check_refused(thirteen("convert", base, "-o", tmp_path / name), "is an input of this command", out)
    assert base.read_bytes() == good("model").read_bytes()


@pytest.mark.parametrize(
    "limit", [*(pytest.param(limit, marks=pytest.mark.exhaustive) for limit in (400, 100_000)), 9_000]
)
def test_a_file_that_cannot_grow_leaves_nothing(
    limit: int, thirteen: Commands, good: Good, out: Path
) -> None:
    """The limits are in the header, in the metadata and in the tensors; the error line fits in each."""
    command = ("convert", good("llama"), "-o", out / "model.gguf", "--type", "F16", "--force")
    done = thirteen(*command, file_limit=limit)
    check_refused(done, "model.gguf: cannot write: File too large", out)
    check_done(thirteen(*command))
    before = (out / "model.gguf").read_bytes()
    assert len(before) > 100_000
    assert thirteen(*command, file_limit=limit).status == 2
    assert contents(out) == {out / "model.gguf": before}
    kept = contents(out)
    base, *output = command[1:4]
    for words in (
        command[:-1],
        ("adapter", good("lora"), "--base", base, *output),
        ("bench", "report", good("lora"), *output),
    ):
        done = thirteen(*words)
        assert "error: --out" in done.stderr and "exists already; --force overwrites it" in done.stderr
    assert contents(out) == kept
    check_done(thirteen("adapter", good("lora"), "--base", base, *output, "--force"))


# Undamaged inputs succeed, so each refusal above is due to the damage


@pytest.mark.parametrize("name", ["llama", "llama bf16 in shards", "qwen2", "model"])
def test_a_good_base_is_converted(name: str, thirteen: Commands, good: Good, out: Path) -> None:
    check_done(thirteen("convert", good(name), "-o", out / "model.gguf", "--type", "Q8_0"))
    check_done(thirteen("inspect", out / "model.gguf"))


@pytest.mark.parametrize("name", ["lora", "dora", "tinylora", "embedding"])
def test_a_good_adapter_is_merged(name: str, thirteen: Commands, good: Good, out: Path) -> None:
    base = good("qwen2" if name == "embedding" else "llama")
    options = ("--adapter", good(name), "--no-fidelity", "--type", "F32")
    check_done(thirteen("convert", base, *options, "-o", out / "model.gguf"))
    check_done(thirteen("adapter", good(name)))
    if name in ("lora", "tinylora"):
        check_done(thirteen("adapter", good(name), "--base", base, "-o", out / "lora.gguf"))


def test_a_good_model_answers(thirteen: Commands, good: Good, tmp_path: Path) -> None:
    adapter = adapter_gguf(tmp_path / "adapter.gguf")
    short = ("--max-tokens", "3", "--context", "256", "--temperature", "1", "--seed", "3")
    for words in ([], ["--adapter", adapter]):
        done = thirteen("ask", good("model"), "Why?", *short, *words)
        assert done.status == 0, done
        assert "answer:" in done.stdout
