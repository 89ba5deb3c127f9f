"""Bad input ends in exit status 2 and one line that names the input and the conflicting numbers.

Each row of a table is a damage to a good input and a part of the expected line. Commands run in a subprocess;
they must leave nothing at the target or next to it.
"""

import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
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

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
INDEX = "model.safetensors.index.json"
LORA, LORA_CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
LORA_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LORA_B = LORA_A.replace("lora_A", "lora_B")
U32, F32, TEXT = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT32, gguf.GGUFValueType.STRING
ARRAY = gguf.GGUFValueType.ARRAY


@dataclass(frozen=True)
class Bad:
    """A kind of bad input: the damage, a part of the expected line, options and base of the command."""

    damage: Damage
    message: str
    options: tuple[str, ...] = ()
    base: str = "llama"


# Damages to a folder or a file


def put(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def delete(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def bytes_of(name: str, edit: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


def json_of(name: str, edit: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        edit(value)
        (folder / name).write_text(json.dumps(value))

    return damage


def config(**changes: Any) -> Damage:
    return json_of(CONFIG, lambda value: value.update(changes))


def lora_config(**changes: Any) -> Damage:
    return json_of(LORA_CONFIG, lambda value: value.update(changes))


def arrays_of(name: str, edit: Callable[[dict[str, np.ndarray]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        arrays = {key: array.copy() for key, array in load_file(folder / name).items()}
        edit(arrays)
        save_file(arrays, folder / name)

    return damage


def weight(name: str, value: float) -> Damage:
    return arrays_of(WEIGHTS, lambda arrays: arrays[name].ravel().__setitem__(5, value))


def lora(edit: Callable[[dict[str, np.ndarray]], Any]) -> Damage:
    return arrays_of(LORA, edit)


def set_all(value: float, part: str = "lora_B") -> Damage:
    return lora(lambda arrays: [array.fill(value) for name, array in arrays.items() if part in name])


def header(edit: Callable[[dict[str, Any]], Any], name: str = WEIGHTS) -> Damage:
    """Change the header only; an edit that returns bytes replaces the whole header."""

    def damage(raw: bytes) -> bytes:
        end = 8 + int.from_bytes(raw[:8], "little")
        entries = json.loads(raw[8:end])
        text = edit(entries)
        text = text if isinstance(text, bytes) else json.dumps(entries).encode()
        return len(text).to_bytes(8, "little") + text + raw[end:]

    return bytes_of(name, damage)


def duplicate_entry(entries: dict[str, Any]) -> bytes:
    entry = json.dumps(entries[Q])
    return json.dumps(entries).encode()[:-1] + f', "{Q}": {entry}}}'.encode()


def shift(by: int) -> Callable[[dict[str, Any]], None]:
    def edit(entries: dict[str, Any]) -> None:
        entries[Q]["data_offsets"] = [offset + by for offset in entries[Q]["data_offsets"]]

    return edit


def grow_last_tensor(entries: dict[str, Any]) -> None:
    last = max(
        (e for n, e in entries.items() if n != "__metadata__"), key=lambda entry: entry["data_offsets"]
    )
    last["shape"][0] += 1 << 20
    last["data_offsets"][1] = last["data_offsets"][0] + int(np.prod(last["shape"])) * 4


def shard(name: Any) -> Damage:
    return json_of(INDEX, lambda index: index["weight_map"].update({Q: name}))


def remove_first_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[0].unlink()


def rename_to_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


DEEP = "[" * 200_000
BASES = {
    "a truncated weight file": Bad(bytes_of(WEIGHTS, lambda raw: raw[:-100]), "bytes, the file has"),
    "an empty weight file": Bad(put(WEIGHTS, b""), f"{WEIGHTS}: a header of 0 bytes in a file of 0"),
    "a header length of 0": Bad(bytes_of(WEIGHTS, lambda raw: bytes(8) + raw[8:]), "the header is not JSON"),
    "a huge header length": Bad(
        bytes_of(WEIGHTS, lambda raw: b"\xff" * 8 + raw[8:]),
        "a header of 18446744073709551615 bytes in a file of",
    ),
    "a header that is not JSON": Bad(header(lambda _: b"{nonsense"), f"{WEIGHTS}: the header is not JSON"),
    "a header that is not UTF-8": Bad(header(lambda _: b"\xff\xfe{}"), "the header is not JSON"),
    "a header that is a list": Bad(header(lambda _: b"[1, 2]"), "the header is not a JSON object"),
    "a deeply nested header": Bad(header(lambda _: DEEP.encode()), "the header is not JSON"),
    "a duplicate name in the header": Bad(header(duplicate_entry), "a name occurs twice"),
    "overlapping offsets": Bad(header(shift(-4)), "but the previous one ends at"),
    "a gap between offsets": Bad(header(shift(4)), "but the previous one ends at"),
    "offsets beyond the file": Bad(header(grow_last_tensor), "bytes, the file has"),
    "a negative shape": Bad(header(lambda e: e[Q].update(shape=[-96, -64])), f"{Q!r} has a damaged entry"),
    "an unknown dtype": Bad(header(lambda e: e[Q].update(dtype="F13")), f"{Q!r} has a damaged entry"),
    "an entry that is not an object": Bad(header(lambda e: e.update({Q: 13})), f"{Q!r} has a damaged entry"),
    "integer tensors": Bad(
        arrays_of(WEIGHTS, lambda arrays: arrays.update({Q: arrays[Q].astype(np.int32)})),
        f"{Q!r} is I32; supported",
    ),
    "a missing tensor": Bad(arrays_of(WEIGHTS, lambda arrays: arrays.pop(Q)), f"tensor {Q!r} is missing"),
    "an extra tensor": Bad(
        arrays_of(WEIGHTS, lambda arrays: arrays.update({"extra.weight": np.ones(3)})),
        "such as 'extra.weight'",
    ),
    "a wrong shape": Bad(
        arrays_of(WEIGHTS, lambda arrays: arrays.update({Q: arrays[Q][:48].copy()})),
        f"{Q!r} has the shape (48, 64); config.json says (96, 64)",
    ),
    "a NaN weight": Bad(weight(Q, np.nan), f"{Q!r}: holds a value that is not finite"),
    "an infinite weight": Bad(weight(NORM, -np.inf), f"{NORM!r}: holds a value that is not finite"),
    "a weight too large for F16": Bad(weight(Q, 7e4), f"{Q!r}: holds 70000, more than", ("--type", "F16")),
    "a weight too large for F16 scales": Bad(
        weight(Q, -1e30), f"{Q!r}: holds 1e+30, more than", ("--type", "Q8_0")
    ),
    "a weight too large for BF16": Bad(
        weight(Q, 3.4e38), f"{Q!r}: holds 3.4e+38, more than", ("--type", "BF16")
    ),
    "a missing shard": Bad(remove_first_shard, "-00001-of-", base="llama bf16 in shards"),
    "a shard above the folder": Bad(
        shard("../../etc/passwd"), "'../../etc/passwd' is not the plain name", base="llama bf16 in shards"
    ),
    "a shard above the folder, with the right ending": Bad(
        shard("../x.safetensors"), "'../x.safetensors' is not the plain name", base="llama bf16 in shards"
    ),
    "a shard at an absolute path": Bad(
        shard("/etc/x.safetensors"), "'/etc/x.safetensors' is not the plain name", base="llama bf16 in shards"
    ),
    "a shard with backslashes": Bad(
        shard("..\\x.safetensors"), "x.safetensors' is not the plain name", base="llama bf16 in shards"
    ),
    "a shard with a zero byte": Bad(
        shard("x\0.safetensors"), "is not the plain name", base="llama bf16 in shards"
    ),
    "a shard that is a number": Bad(shard(13), "'13' is not the plain name", base="llama bf16 in shards"),
    "a shard that lacks its tensor": Bad(
        json_of(INDEX, lambda index: index["weight_map"].update(extra=index["weight_map"][Q])),
        f"tensor 'extra' is missing, although {INDEX} lists it",
        base="llama bf16 in shards",
    ),
    "an index that is not JSON": Bad(put(INDEX, "{"), f"{INDEX}: not JSON", base="llama bf16 in shards"),
    "an index without a map": Bad(put(INDEX, "{}"), f"{INDEX}: no weight_map", base="llama bf16 in shards"),
    "no config.json": Bad(delete(CONFIG), "config.json: No such file or directory"),
    "a config.json that is not JSON": Bad(put(CONFIG, "{'a': 1}"), "config.json: not JSON"),
    "a config.json that is not UTF-8": Bad(put(CONFIG, b"\xff\xfe"), "config.json: not UTF-8"),
    "a config.json that is a list": Bad(put(CONFIG, "[]"), "config.json: not a JSON object"),
    "a deeply nested config.json": Bad(put(CONFIG, DEEP), "config.json: not JSON"),
    "another architecture": Bad(
        config(architectures=["GPT2LMHeadModel"]), "'GPT2LMHeadModel' is not supported"
    ),
    "an architecture that is a list": Bad(config(architectures=[["x"]]), "['x'] is not supported"),
    "an odd head dimension": Bad(
        config(head_dim=23), "the head dimension is 23; it must be positive and even"
    ),
    "heads that do not divide": Bad(
        config(num_key_value_heads=3), "4 heads do not divide among 3 key-value heads"
    ),
    "an absurd number of layers": Bad(
        config(num_hidden_layers=1 << 24), "16777216 layers; at most 512 are supported"
    ),
    "an absurd width": Bad(config(hidden_size=10**30), "hidden_size is 10000000000000000000000000000"),
    "a number of 400 digits": Bad(config(rms_norm_eps=10**400), "rms_norm_eps is 1000"),
    "a number beyond float32": Bad(config(rms_norm_eps=1e300), "rms_norm_eps is 1e+300"),
    "a size of zero": Bad(config(num_attention_heads=0), "num_attention_heads is 0, not a positive number"),
    "a negative size": Bad(config(vocab_size=-5), "vocab_size is -5, not a positive number"),
    "a string for a number": Bad(
        config(intermediate_size="96"), "intermediate_size is '96', not a positive number"
    ),
    "a string for a boolean": Bad(config(tie_word_embeddings="false"), "tie_word_embeddings is 'false'"),
    "a list for rope scaling": Bad(config(rope_parameters=[1]), "rope_parameters is [1]"),
    "unknown rope scaling": Bad(
        config(rope_parameters={"rope_type": "yarn", "factor": 4.0}), "rope scaling 'yarn' is not supported"
    ),
    "another activation": Bad(config(hidden_act="gelu"), "hidden_act is 'gelu'; only 'silu' is supported"),
    "a quantized checkpoint": Bad(
        config(quantization_config={"quant_method": "gptq"}), "the checkpoint is quantized"
    ),
    "no tokenizer.json": Bad(delete(TOKENIZER), "tokenizer.json: No such file or directory"),
    "unknown splitting rules": Bad(
        json_of(
            TOKENIZER, lambda value: value["pre_tokenizer"].update(pretokenizers=[{"type": "Whitespace"}])
        ),
        "unknown splitting rules (('Whitespace',),)",
    ),
    "another kind of tokenizer": Bad(
        json_of(TOKENIZER, lambda value: value["model"].update(type="Unigram")),
        "only byte-level BPE is supported",
    ),
    "a token beyond the embedding": Bad(
        json_of(TOKENIZER, lambda value: value["model"]["vocab"].update(zz=272)),
        "token 'zz' has the id 272, but the embedding has 272 rows",
    ),
    "a token that is not a string": Bad(
        json_of(TOKENIZER, lambda value: value["added_tokens"][0].update(content=13)),
        "tokenizer.json: unexpected layout",
    ),
    "a token with a lone surrogate": Bad(
        json_of(TOKENIZER, lambda value: value["model"]["vocab"].update({"\ud800": 270})),
        "tokenizer.ggml.tokens is not Unicode text",
    ),
    "a tokenizer without merges": Bad(
        json_of(TOKENIZER, lambda value: value["model"].pop("merges")),
        "tokenizer.json: unexpected layout",
    ),
    "a post-processor that is a list": Bad(
        json_of(TOKENIZER, lambda value: value.update(post_processor=[1])),
        "tokenizer.json: unexpected layout",
    ),
    "an end token beyond the embedding": Bad(
        put("generation_config.json", '{"eos_token_id": 99999999999}'),
        "eos_token_id 99999999999 is not one of 272 tokens",
    ),
    "chat templates without names": Bad(
        json_of("tokenizer_config.json", lambda value: value.update(chat_template=[{"a": 1}])),
        "tokenizer_config.json: unexpected layout",
    ),
    "a chat template that is not UTF-8": Bad(
        put("chat_template.jinja", b"\xff"), "chat_template.jinja: not UTF-8"
    ),
    "only pickled weights": Bad(rename_to_pickle, f"has neither {WEIGHTS} nor {INDEX}"),
    "an empty folder": Bad(empty, "config.json: No such file or directory"),
    "no folder": Bad(remove, "no such file or folder"),
    "an unknown type": Bad(lambda _: None, "--type 'Q9_K': no such type; supported: F32", ("--type", "Q9_K")),
    "a type that needs importances": Bad(
        lambda _: None, "IQ2_XXS needs an importance matrix", ("--type", "IQ2_XXS"), base="llama wide"
    ),
    "no threads": Bad(lambda _: None, "Invalid value for '--threads'", ("--threads", "0")),
    "threads that are not a number": Bad(lambda _: None, "Invalid value for '--threads'", ("--threads", "x")),
}


def module(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
    prefix = f"base_model.model.{name}"
    shapes = {f"{prefix}.lora_A.weight": (4, columns), f"{prefix}.lora_B.weight": (rows, 4)}
    return {key: np.full(shape, 0.1, np.float32) for key, shape in shapes.items()}


def huge_projections(arrays: dict[str, np.ndarray]) -> None:
    for name in [name for name in arrays if name.endswith("_P")]:
        del arrays[name]
    for name in arrays:
        shape = {"A": (64, 64), "B": (96, 64), "0": (10**5,)}[name[-1]]
        arrays[name] = np.ones(shape, np.float32)


ADAPTERS = {
    "no adapter_config.json": Bad(delete(LORA_CONFIG), "not a PEFT adapter: adapter_config.json is missing"),
    "an adapter_config.json that is not JSON": Bad(put(LORA_CONFIG, "r: 4"), "adapter_config.json: not JSON"),
    "an adapter_config.json that is a list": Bad(
        put(LORA_CONFIG, "[]"), "adapter_config.json: not a JSON object"
    ),
    "no adapter weights": Bad(delete(LORA), f"{LORA} is missing"),
    "only a pickle": Bad(
        lambda a: (a / LORA).rename(a / "adapter_model.bin"), "adapter_model.bin is a pickle"
    ),
    "an unknown kind": Bad(lora_config(peft_type="NONSENSE"), "NONSENSE"),
    "a kind that is a list": Bad(lora_config(peft_type=[1]), "[1]"),
    "a base that is a list": Bad(
        lora_config(base_model_name_or_path=["a/b"]), "base_model_name_or_path is ['a/b'], not a name"
    ),
    "a kind of 5000 characters": Bad(lora_config(peft_type="x" * 5000), "xxx"),
    "a pattern of 5000 characters": Bad(lora_config(rank_pattern={"(" * 5000: 4}), "'(((("),
    "an alpha of 5000 characters": Bad(lora_config(lora_alpha="6" * 5000), "lora_alpha is '666"),
    "a rank of 5000 characters": Bad(lora_config(r="4" * 5000), "says '444"),
    "prompt tuning": Bad(lora_config(peft_type="PROMPT_TUNING"), "PROMPT_TUNING"),
    "a NaN in an adapter": Bad(
        lora(lambda a: a[LORA_A].fill(np.nan)), f"{LORA_A!r} holds a value that is not finite"
    ),
    "an infinity in an adapter": Bad(set_all(np.inf), "holds a value that is not finite"),
    "deltas that overflow": Bad(
        lora(lambda a: [array.fill(3e38) for array in a.values()]), "not finite", ("--type", "F32")
    ),
    "an adapter that changes nothing": Bad(set_all(0), "every delta is zero"),
    "truncated adapter weights": Bad(bytes_of(LORA, lambda raw: raw[:-4]), "bytes, the file has"),
    "adapter weights that are a Git LFS pointer": Bad(put(LORA, "version https://git-lfs"), "a header of"),
    "integers in an adapter": Bad(
        lora(lambda a: a.update({LORA_A: a[LORA_A].astype(np.int8)})), f"{LORA_A!r} is I8; supported"
    ),
    "a scalar in an adapter": Bad(
        header(lambda _: b'{"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}' + b" ", LORA),
        "header describes",
    ),
    "a scalar for a factor": Bad(
        lora(lambda a: a.update({LORA_A: np.array(1, np.float32)})), "do not fit: B is (96, 4), A is ()"
    ),
    "factors that do not fit": Bad(
        lora(lambda a: a.update({LORA_A: np.ones((3, 64), np.float32)})),
        "do not fit: B is (96, 4), A is (3, 64)",
    ),
    "a missing factor": Bad(lora(lambda a: a.pop(LORA_B)), "has lora_A; expected lora_A, lora_B"),
    "an extra key": Bad(lora(lambda a: a.update(extra=np.ones(3, np.float32))), "unknown key 'extra'"),
    "no keys": Bad(lora(lambda a: a.clear()), f"{LORA}: no adapter weights in it"),
    "modules to save": Bad(lora_config(modules_to_save=["lm_head"]), "modules_to_save is set"),
    "a rank that disagrees": Bad(lora_config(r=5), "has rank 4, but adapter_config.json says 5"),
    "a string for alpha": Bad(lora_config(lora_alpha="6"), "lora_alpha is '6'"),
    "an infinite alpha": Bad(lora_config(lora_alpha=float("inf")), "lora_alpha is inf"),
    "an alpha of 400 digits": Bad(lora_config(lora_alpha=10**400), "lora_alpha is 1000"),
    "a pattern that is a list": Bad(lora_config(rank_pattern=["q_proj"]), "rank_pattern is not an object"),
    "a pattern that backtracks": Bad(lora_config(rank_pattern={"(a*)*b": 4}), "'(a*)*b' is too complex"),
    "a pattern of many stars": Bad(lora_config(alpha_pattern={".*" * 9 + "!": 4}), "is too complex"),
    "an invalid pattern": Bad(lora_config(rank_pattern={"(": 4}), "invalid rank_pattern '('"),
    "a deeply nested pattern": Bad(lora_config(rank_pattern={"(" * 9999 + ")" * 9999: 4}), "is too complex"),
    "a pattern with a huge repetition": Bad(
        lora_config(rank_pattern={"a{99999999999}": 4}), "invalid rank_pattern"
    ),
    "a name of 5000 characters": Bad(lora(lambda a: a.update(module("x" * 5000, 8, 8))), "unknown key"),
    "a layer number of 5000 digits": Bad(
        lora(lambda a: a.update(module("model.layers." + "1" * 5000 + ".self_attn.q_proj", 96, 64))), "1111"
    ),
}
# Adapters that do not fit the base; `adapter show` accepts them.
MISFITS = {
    "a delta of a tied output": Bad(
        lora(lambda a: a.update(module("lm_head", 272, 64))),
        "a delta of 'lm_head.weight', but this base ties",
    ),
    "a delta of an unknown module": Bad(
        lora(lambda a: a.update(module("some module", 8, 8))),
        "unknown key 'base_model.model.some module.lora_A.weight'",
    ),
    "a delta beyond the last layer": Bad(
        lora(lambda a: a.update(module("model.layers.7.self_attn.q_proj", 96, 64))),
        "no tensor 'model.layers.7.",
    ),
    "an adapter of another model": Bad(
        lambda _: None, "(96, 64), the base's tensor (64, 64): it was trained on another model", base="qwen2"
    ),
    "an adapter of a wider model": Bad(
        lora(lambda a: a.update(module("model.layers.0.self_attn.q_proj", 96, 80))),
        "the delta of 'model.layers.0.self_attn.q_proj.weight' is (96, 80), the base's tensor (96, 64)",
    ),
    "an adapter for PEFT's own merge that does not fit": Bad(
        lambda folder: (lora_config(bias="all")(folder), lora(lambda a: a.pop(LORA_B))(folder)),
        "1 tensors are missing or left over, such as",
    ),
}
TINY = {
    "a missing trained vector": Bad(
        lora(lambda a: a.pop("base_model.tinylora_v.0")), "0 trained vectors for 1 groups of modules"
    ),
    "projections of another size": Bad(
        lora(lambda a: a.update({"base_model.tinylora_v.0": np.ones(12, np.float32)})),
        "is (12,), but adapter_config.json says u = 13",
    ),
    "no projections and no seed": Bad(
        lambda folder: (
            lora(lambda a: [a.pop(key) for key in list(a) if key.endswith("_P")])(folder),
            lora_config(projection_seed=None)(folder),
        ),
        "no saved projections, and projection_seed is None",
    ),
    "a weight_tying above 1": Bad(lora_config(weight_tying=1.5), "weight_tying is 1.5, not between 0 and 1"),
    "projections that do not fit in memory": Bad(
        lambda folder: (lora(huge_projections)(folder), lora_config(u=10**5, r=64)(folder)),
        "its projections are more than 67,108,864 numbers",
    ),
}


# GGUF files


def gguf_bytes(edit: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(edit(write_gguf(path, {}, {}).read_bytes()))


def put_file(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def put_at(at: int, code: str, value: int) -> Damage:
    new = struct.pack("<" + code, value)
    return gguf_bytes(lambda raw: raw[:at] + new + raw[at + len(new) :])


def after(name: str, at: int, code: str, value: int) -> Damage:
    """Write a number `at` bytes after the name of a key or a tensor."""
    new, start = struct.pack("<" + code, value), struct.pack("<Q", len(name)) + name.encode()

    def edit(raw: bytes) -> bytes:
        place = raw.index(start) + len(start) + at
        return raw[:place] + new + raw[place + len(new) :]

    return gguf_bytes(edit)


def renamed(old: str, new: str) -> Damage:
    assert len(old) == len(new)
    return gguf_bytes(
        lambda raw: raw.replace(
            struct.pack("<Q", len(old)) + old.encode(), struct.pack("<Q", len(new)) + new.encode()
        )
    )


def keys(**changes: Any) -> Damage:
    return lambda path: write_gguf(
        path, {key.replace("__", "."): value for key, value in changes.items()}, {}
    )


def with_arrays(arrays: dict[str, np.ndarray | None]) -> Damage:
    return lambda path: write_gguf(path, {}, arrays)


# (64, 64). After the name: number of dimensions (4 bytes), each dimension (8), type (4), offset (8).
QUERY = "blk.0.attn_q.weight"
# Refused by inspect, convert and ask with the same line.
HEADERS = {
    "an empty GGUF": Bad(put_file(b""), "not a GGUF file"),
    "a text file": Bad(put_file(b"GGML"), "not a GGUF file"),
    "a GGUF of four bytes": Bad(put_file(b"GGUF"), "the header runs past the end of the file (4 bytes)"),
    "a version of 99": Bad(put_at(4, "I", 99), "GGUF version 99; supported: 2, 3"),
    "a big-endian version": Bad(put_at(4, "I", 3 << 24), "GGUF version 50331648"),
    "a truncated header": Bad(gguf_bytes(lambda raw: raw[:200]), "past the end of the file"),
    "truncated tensors": Bad(gguf_bytes(lambda raw: raw[:-100]), "it is truncated"),
    "a quintillion tensors": Bad(put_at(8, "Q", 1 << 60), "1152921504606846976 tensors; at most 16384"),
    "a quintillion keys": Bad(put_at(16, "Q", 1 << 60), "1152921504606846976 metadata keys; at most 16384"),
    "more tensors than there are": Bad(put_at(8, "Q", 16000), "tensor"),
    "more keys than there are": Bad(put_at(16, "Q", 16000), "past the end of the file"),
    "fewer keys than there are": Bad(put_at(16, "Q", 3), "tensor"),
    "a string longer than the file": Bad(
        after("general.name", 4, "Q", 1 << 40), "a string of 1099511627776 bytes"
    ),
    "an array longer than the file": Bad(
        after("tokenizer.ggml.tokens", 8, "Q", 1 << 62),
        "'tokenizer.ggml.tokens' has 4611686018427387904 elements",
    ),
    "a key of unknown type": Bad(after("general.name", 0, "I", 77), "'general.name' has the unknown type 77"),
    "arrays in an array": Bad(
        after("tokenizer.ggml.tokens", 4, "I", 9), "'tokenizer.ggml.tokens' is an array of arrays"
    ),
    "a duplicate key": Bad(
        renamed("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"),
        "the metadata key 'tokenizer.ggml.eos_token_id' occurs twice",
    ),
    "a duplicate tensor": Bad(
        renamed(QUERY, "blk.0.attn_k.weight"), "the tensor 'blk.0.attn_k.weight' occurs twice"
    ),
    "a tensor of unknown type": Bad(after(QUERY, 20, "I", 99), f"{QUERY!r} has the unknown type 99"),
    "a tensor of no dimensions": Bad(after(QUERY, 0, "I", 0), f"{QUERY!r} has 0 dimensions"),
    "a tensor of many dimensions": Bad(after(QUERY, 0, "I", 1 << 31), f"{QUERY!r} has 2147483648 dimensions"),
    "a tensor of no size": Bad(after(QUERY, 4, "Q", 0), f"{QUERY!r} has the shape (64, 0)"),
    "a tensor of a size that overflows": Bad(
        after(QUERY, 4, "Q", 1 << 63), f"{QUERY!r} has the shape (64, 922"
    ),
    "rows that are not whole blocks": Bad(
        after(QUERY, 20, "I", 12), "rows of 64, not a multiple of Q4_K's block of 256"
    ),
    "a tensor beyond the file": Bad(
        after(QUERY, 24, "Q", 1 << 50), f"{QUERY!r} is at offset 1125899906842624; it must"
    ),
    "a tensor over another": Bad(after(QUERY, 24, "Q", 0), f"{QUERY!r} is at offset 0; it must be at"),
    "an alignment of 3": Bad(keys(general__alignment=(3, U32, None)), "general.alignment is 3"),
}


def adapter_gguf(
    path: Path,
    changes: dict[str, Any] | None = None,
    shapes: tuple[tuple[int, int], ...] = ((2, 64), (64, 2)),
    value: float = 0.1,
) -> Path:
    """Write a GGUF LoRA for the first query of the tiny model."""
    fields = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 2.0,
    } | (changes or {})
    writer = gguf.GGUFWriter(path, fields.pop("general.architecture", "llama"))
    for key, entry in fields.items():
        writer.add_key_value(key, entry, F32 if isinstance(entry, float) else TEXT)
    for suffix, shape in zip((".lora_a", ".lora_b"), shapes, strict=False):
        writer.add_tensor(fields.get("general.name", QUERY) + suffix, np.full(shape, value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# Valid headers of impossible models, with the errors of convert and of ask.
MODELS = {
    "another architecture": (
        keys(general__architecture=("mamba", TEXT, None)),
        "the architecture 'mamba' is not supported",
        "the architecture 'mamba' is not supported",
    ),
    "no architecture": (
        keys(general__architecture=None),
        "the architecture 'None' is not supported",
        "'general.architecture' is missing",
    ),
    "heads that do not divide": (
        keys(llama__attention__head_count_kv=(3, U32, None)),
        "4 heads do not divide among 3 key-value heads",
        "4 heads do not divide among 3 key-value heads",
    ),
    "half of a head rotated": (
        keys(llama__rope__dimension_count=(8, U32, None)),
        "'llama.rope.dimension_count' is 8, but the head dimension is 16",
        "'llama.rope.dimension_count' is 8, but the head dimension is 16",
    ),
    "a count that is a string": (
        keys(llama__block_count=("two", TEXT, None)),
        "'llama.block_count' is of type STRING, not UINT32",
        "'llama.block_count' is of type STRING, not UINT32",
    ),
    "an absurd number of layers": (
        keys(llama__block_count=(1 << 24, U32, None)),
        "'llama.block_count' is 16777216; it must be from 1 to 512",
        "'llama.block_count' is 16777216; it must be from 1 to 512",
    ),
    "a vocabulary that is a number": (
        keys(tokenizer__ggml__tokens=(13, U32, None)),
        "'tokenizer.ggml.tokens' is of type UINT32, not ARRAY",
        "'tokenizer.ggml.tokens' is of type UINT32, not ARRAY",
    ),
    "a missing tensor": (
        with_arrays({QUERY: None}),
        f"tensor {QUERY!r} is missing",
        f"tensor {QUERY!r} is missing",
    ),
    "an extra tensor": (
        with_arrays({"extra": np.ones(32, np.float32)}),
        "has 1 tensors that llama does not have, such as 'extra'",
        "tensor 'extra' does not belong to this architecture",
    ),
    "a tensor of a wrong shape": (
        with_arrays({QUERY: np.ones((32, 64), np.float32)}),
        f"{QUERY!r} has the shape (32, 64); the metadata says (64, 64)",
        f"{QUERY!r} has the shape (32, 64); the metadata says (64, 64)",
    ),
    "a tensor of integers": (
        with_arrays({QUERY: np.ones((64, 64), np.int32)}),
        f"{QUERY!r} is I32, which cannot be dequantized",
        f"{QUERY!r} is of type I32, which is not supported",
    ),
    "NaN in a tensor": (
        with_arrays({QUERY: np.full((64, 64), np.nan, np.float32)}),
        "q_proj.weight': holds a value that is not finite",
        "logits are not finite numbers",
    ),
    "rope factors of a wrong shape": (
        with_arrays({"rope_freqs.weight": np.ones(5, np.float32)}),
        "'rope_freqs.weight' has the shape (5,); the metadata says (8,)",
        "'rope_freqs.weight' has the shape (5,); the metadata says (8,)",
    ),
    "rope factors of integers": (
        with_arrays({"rope_freqs.weight": np.ones(8, np.int32)}),
        "'rope_freqs.weight' is I32, which cannot be dequantized",
        "'rope_freqs.weight' is of type I32, which is not supported",
    ),
    "rope factors that are not finite": (
        with_arrays({"rope_freqs.weight": np.full(8, np.nan, np.float32)}),
        "'rope_freqs.weight': holds a value that is not finite",
        "logits are not finite numbers",
    ),
    "an adapter for a model": (
        adapter_gguf,
        "general.type is 'adapter', not 'model'",
        "general.type is 'adapter', not 'model'",
    ),
}
LOOP = "{%- for i in range(99999) -%}"


def template(source: str) -> Damage:
    return keys(tokenizer__chat_template=(source, TEXT, None))


TEMPLATES = {
    "a template with a syntax error": (
        template("{% if %}"),
        "model.gguf: the chat template cannot be compiled",
    ),
    "a template that is a number": (
        keys(tokenizer__chat_template=(13, U32, None)),
        "'tokenizer.chat_template' is not a string",
    ),
    "a deeply nested template": (
        template("{{" + "(" * 20000 + "1"),
        "the chat template cannot be compiled",
    ),
    "a template that escapes the sandbox": (
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "the chat template failed: SecurityError",
    ),
    "a template that runs a program": (
        template("{{ cycler.__init__.__globals__.os.popen('touch /tmp/thirteen-was-here').read() }}"),
        "the chat template failed: SecurityError",
    ),
    "a template that reads a file": (template("{% include '/etc/passwd' %}"), "the chat template failed"),
    "a template that divides by zero": (
        template("{{ 1 // 0 }}"),
        "the chat template failed: ZeroDivisionError",
    ),
    "a template that raises an exception": (
        template("{{ raise_exception('no\x1b[2Jway\n2') }}"),
        "TemplateError: no [2Jway 2",
    ),
    "a template with endless output": (
        template(LOOP * 3 + "{{ 'abc' * 100 }}" + "{%- endfor -%}" * 3),
        "it has written more than 4194304 characters",
    ),
    "a template with an endless loop": (template(LOOP * 3 + "{%- endfor -%}" * 3), "the chat template"),
    "a template that repeats a string": (
        template("{{ 'a' * 10 ** 12 }}"),
        "* gives more than the 4194304 that a prompt may need",
    ),
    "a template that doubles a string": (
        template(
            "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
        ),
        "the chat template failed",
    ),
    "a template that pads a string": (template("{{ '%999999999d' % 1 }}"), "the chat template failed"),
}


RUN_TIME_ADAPTERS = {
    "a model in place of an adapter": (lambda path: write_gguf(path, {}, {}), "'general.type' is"),
    "a truncated adapter": (
        lambda path: path.write_bytes(adapter_gguf(path).read_bytes()[:-8]),
        "it is truncated",
    ),
    "an adapter for another architecture": (
        lambda path: adapter_gguf(path, {"general.architecture": "qwen2"}),
        "'general.architecture' is 'qwen2', not 'llama'",
    ),
    "an adapter of another kind": (
        lambda path: adapter_gguf(path, {"adapter.type": "ia3"}),
        "'adapter.type' is 'ia3', not 'lora'",
    ),
    "an adapter for other shapes": (
        lambda path: adapter_gguf(path, shapes=((2, 80), (80, 2))),
        f"factors (80, 2) and (2, 80) do not multiply to the shape of {QUERY!r}, which is (64, 64)",
    ),
    "an adapter beyond the last layer": (
        lambda path: adapter_gguf(path, {"general.name": "blk.9.attn_q.weight"}),
        "it changes 'blk.9.attn_q.weight', which the base model does not have",
    ),
    "half an adapter": (
        lambda path: adapter_gguf(path, shapes=((2, 64),)),
        "are not pairs of .lora_a and .lora_b",
    ),
    "an adapter of NaN": (lambda path: adapter_gguf(path, value=np.nan), "logits are not finite numbers"),
    "an alpha that is not finite": (
        lambda path: adapter_gguf(path, {"adapter.lora.alpha": float("inf")}),
        "'adapter.lora.alpha' is inf",
    ),
}
LONG = "many words " * 100
QUESTIONS = {
    "an empty question": ((""), "the question is empty"),
    "a question of spaces": ((" \n\t "), "the question is empty"),
    "a question longer than the context": ((LONG), "tokens, but the context holds 256"),
    "a question longer than --context": (("Why?", "--context", "4"), "tokens, but the context holds 4"),
    "a context of 0": (("Why?", "--context", "0"), "Invalid value for '--context'"),
    "a context that is not a number": (("Why?", "--context", "many"), "Invalid value for '--context'"),
    "a temperature that is not a number": (
        ("Why?", "--temperature", "nan"),
        "temperature must be 0 or a finite number of at least 0.0001, not nan",
    ),
    "a temperature below 0": (
        ("Why?", "--temperature=-1"),
        "temperature must be 0 or a finite number of at least 0.0001, not -1.0",
    ),
    "a top_p of 0": (("Why?", "--top-p", "0"), "top_p must be above 0 and at most 1, not 0.0"),
    "a top_k below 0": (("Why?", "--top-k=-1"), "top_k must be an integer from 0 to 2147483647, not -1"),
    "a min_p of 1": (("Why?", "--min-p", "1"), "min_p must be from 0 and below 1, not 1.0"),
    "a seed below 0": (("Why?", "--seed=-1"), "seed must be an integer from 0 to 4294967294, not -1"),
    "no tokens": (("Why?", "--max-tokens", "0"), "Invalid value for '--max-tokens'"),
    "an empty stop": (("Why?", "--stop", ""), "a stop string is empty"),
    "a question without quotes": (("what", "is", "this"), "not 4 arguments: quote the question"),
    "no threads": (("Why?", "--threads", "0"), "Invalid value for '--threads'"),
    "too many threads": (("Why?", "--threads", "9999"), "Invalid value for '--threads'"),
    "an unknown flag": (("Why?", "--frobnicate"), "No such option: --frobnicate"),
    "a flag without its value": (("Why?", "--seed"), "Option '--seed' requires an argument"),
}
COMMANDS = {
    "an unknown command": (("frobnicate",), "No such command 'frobnicate'"),
    "an unknown command of a group": (("adapter", "frobnicate"), "No such command 'frobnicate'"),
    "a missing argument": (("convert",), "Missing argument 'BASE'"),
    "a missing output": (("convert", "BASE"), "Missing option '--output'"),
    "an unknown base": (("convert", "nothing-13", "-o", "OUT/x.gguf"), "no base 'nothing-13'"),
    "a base that is an empty string": (("convert", "", "-o", "OUT/x.gguf"), "'': no such file or folder"),
    "an unknown adapter": (("adapter", "show", "nothing-13"), "no adapter 'nothing-13'"),
    "an importance of an export that keeps all": (
        ("adapter", "export", "BASE", "--base", "BASE", "--importance", "MODEL", "-o", "OUT/x.gguf"),
        "--importance requires --keep",
    ),
    "a share above 1": (
        ("adapter", "export", "BASE", "--base", "BASE", "--keep", "1.5", "-o", "OUT/x.gguf"),
        "'--keep': Input should be less than or equal to 1",
    ),
    "an adapter that is a file": (("adapter", "show", "MODEL"), "not a PEFT adapter"),
    "a revision of a folder": (
        ("convert", "BASE", "-o", "OUT/x.gguf", "--revision", "v1"),
        "the revision 'v1' applies only to the hub",
    ),
    "a missing model": (("inspect", "OUT/x.gguf"), "x.gguf: No such file or directory"),
    "a model that is a folder": (("inspect", "OUT"), "Is a directory"),
    "a question to a missing model": (
        ("ask", "OUT/x.gguf", "Why?"),
        "x.gguf: No such file or directory",
    ),
    "too few rounds": (
        ("bench", "latency", "MODEL", "MODEL", "--rounds", "1"),
        "Invalid value for '--rounds'",
    ),
    **{
        f"{' '.join(command)} with an option that has no effect: {flags[0]}": ((*command, *flags), message)
        for command, flags, message in (
            (("convert", "BASE", "-o", "OUT/x.gguf"), ("--prefer", "speed"), "--prefer: requires --size"),
            (
                ("convert", "BASE", "-o", "OUT/x.gguf", "--importance", "MODEL"),
                ("--calibration", "BASE/config.json"),
                "--calibration: --importance is given, so none is measured",
            ),
            (("importance", "BASE", "--fetch"), ("--threads", "2"), "--fetch takes no other option"),
            (("web", "MODEL", "--out", "OUT/x"), ("--port", "0"), "--port: requires --serve"),
            (("web", "MODEL", "--serve"), ("--json",), "--json: requires --out"),
            (
                ("adapter", "export", "BASE", "--base", "BASE", "-o", "OUT/x.gguf"),
                ("--threads", "2"),
                "--threads: requires --keep",
            ),
            (
                *(("adapter", "export", "BASE", "--base", "BASE", "-o", "OUT/x.gguf", "--keep", "0.9"),),
                ("--importance", "MODEL", "--threads", "2"),
                "--threads: --importance is given, so none is measured",
            ),
            (("bench", "report"), ("--limit", "3"), "--limit: requires --data"),
            (
                ("bench", "report", "--latency", "BASE/config.json"),
                ("--threads", "2"),
                "--threads: requires BASE and ADAPTED",
            ),
            (
                ("train", "BASE", "--data", "BASE/config.json", "-o", "OUT/a"),
                ("--kl", "0.1"),
                "--kl: it is not for --method sft",
            ),
            (
                ("train", "BASE", "--data", "BASE/config.json", "-o", "OUT/a"),
                ("--numbers", "13"),
                "--numbers: it is not for --kind lora",
            ),
            (
                ("train", "BASE", "--rollouts", "BASE/config.json", "-o", "OUT/a"),
                ("--no-final-line",),
                "--final-line: it is for --data",
            ),
        )
    },
    "a vocabulary that is to suit a size, without a size": (
        ("convert", "BASE", "-o", "OUT/x.gguf", "--vocabulary", "auto"),
        "--vocabulary auto requires --size",
    ),
    "a merge with a vocabulary that is to suit a size": (
        ("merge", "BASE", "--out", "OUT/m", "--vocabulary", "auto"),
        "--vocabulary auto: it is for convert --size and plan",
    ),
    "a merge of nothing, with a base that is not here": (
        ("merge", "llama-3.2-1b", "--out", "OUT/m"),
        "merge: needs --adapter, --vocabulary, or both",
    ),
    "a report over the importance that is read": (
        ("convert", "BASE", "-o", "OUT/x.gguf", "--importance", "MODEL", "--report", "MODEL"),
        "is an input of this command",
    ),
    "a model for doctor without --speed": (
        ("doctor", "--model", "MODEL"),
        "--model requires --speed",
    ),
    "a file to tune that is not a GGUF": (
        ("doctor", "--tune", "--model", "BASE/config.json"),
        "not a GGUF file",
    ),
    "a comparison longer than the context": (
        ("bench", "latency", "MODEL", "MODEL", "--prompt-tokens", "9999"),
        "longer than the context of 256 tokens: 9999 + 65 tokens",
    ),
    "a comparison with a file that is not a GGUF": (
        ("bench", "latency", "MODEL", "BASE/config.json"),
        "not a GGUF file",
    ),
    "a comparison with an adapter that is not a GGUF": (
        ("bench", "latency", "MODEL", "MODEL", "--adapter", "BASE/config.json"),
        "config.json: not a GGUF file",
    ),
    "an unknown question set": (
        ("bench", "accuracy", "MODEL", "--data", "nothing-13", "--records", "OUT"),
        "nothing-13: no such file, and not one of the sets gsm8k, svamp, asdiv",
    ),
    "a question set that is not JSON lines": (
        ("bench", "accuracy", "MODEL", "--data", "BASE/config.json", "--records", "OUT"),
        "config.json: line 1: not JSON",
    ),
    "no question set": (("bench", "accuracy", "MODEL"), "Missing option '--data'"),
    "an unknown prompt": (
        ("bench", "accuracy", "MODEL", "--data", "svamp", "--prompt", "9-shot"),
        "prompt: '9-shot' is not one of zero-shot, refined, 8-shot",
    ),
    "too many votes": (
        ("bench", "accuracy", "MODEL", "--data", "svamp", "--votes", "65"),
        "Invalid value for '--votes'",
    ),
}


@pytest.fixture(scope="module")
def thirteen() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


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


@pytest.mark.parametrize("kind", BASES)
def test_a_bad_base_is_refused(kind: str, thirteen: Commands, good: Good, tmp_path: Path, out: Path) -> None:
    bad = BASES[kind]
    folder = damaged(good(bad.base), tmp_path / "base", bad.damage)
    check_refused(thirteen("convert", folder, "-o", out / "model.gguf", *bad.options), bad.message, out)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_bad_adapter_is_refused(
    kind: str, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    bad = ADAPTERS[kind]
    adapter = damaged(good("lora"), tmp_path / "adapter", bad.damage)
    convert = thirteen("convert", good("llama"), "--adapter", adapter, "-o", out / "model.gguf", *bad.options)
    check_refused(convert, bad.message, out)
    if not bad.options:  # with options, only the merge fails
        check_refused(thirteen("adapter", "show", adapter), bad.message, out)


@pytest.mark.parametrize("kind", MISFITS)
def test_an_adapter_that_does_not_fit_the_base_is_refused(
    kind: str, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    bad = MISFITS[kind]
    adapter = damaged(good("lora"), tmp_path / "adapter", bad.damage)
    check_refused(
        thirteen("convert", good(bad.base), "--adapter", adapter, "-o", out / "m.gguf"), bad.message, out
    )


@pytest.mark.parametrize("kind", TINY)
def test_a_bad_tinylora_is_refused(
    kind: str, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    bad = TINY[kind]
    adapter = damaged(good("tinylora"), tmp_path / "adapter", bad.damage)
    check_refused(
        thirteen("convert", good("llama"), "--adapter", adapter, "-o", out / "m.gguf"), bad.message, out
    )
    check_refused(thirteen("adapter", "show", adapter), bad.message, out)


EXPORTS = {
    "of DoRA": ("dora", "llama", "DoRA rescales the base's rows, which no run-time LoRA can"),
    "of an embedding": ("embedding", "qwen2", "a delta of the embedding cannot be applied at run time"),
    "for another model": ("lora", "qwen2", "it was trained on another model"),
}


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_impossible_export_is_refused(kind: str, thirteen: Commands, good: Good, out: Path) -> None:
    adapter, name, message = EXPORTS[kind]
    done = thirteen("adapter", "export", good(adapter), "--base", good(name), "-o", out / "lora.gguf")
    check_refused(done, message, out)


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_gguf_is_refused_by_all_commands(
    kind: str, thirteen: Commands, tmp_path: Path, out: Path
) -> None:
    bad, model = HEADERS[kind], tmp_path / "model.gguf"
    bad.damage(model)
    for command in (("inspect", model), ("convert", model, "-o", out / "x.gguf"), ("ask", model, "Why?")):
        check_refused(thirteen(*command), bad.message, out)


@pytest.mark.parametrize("kind", MODELS)
def test_a_gguf_of_an_impossible_model_is_refused(
    kind: str, thirteen: Commands, tmp_path: Path, out: Path
) -> None:
    (damage, convert_message, ask_message), model = MODELS[kind], tmp_path / "model.gguf"
    damage(model)
    check_done(thirteen("inspect", model))
    check_refused(thirteen("convert", model, "-o", out / "x.gguf"), convert_message, out)
    check_refused(thirteen("ask", model, "Why?"), ask_message, out)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_hostile_chat_template_is_refused(kind: str, thirteen: Commands, tmp_path: Path, out: Path) -> None:
    (damage, message), model = TEMPLATES[kind], tmp_path / "model.gguf"
    damage(model)
    check_refused(thirteen("ask", model, "Why?"), message, out)
    assert not Path("/tmp/thirteen-was-here").exists()


@pytest.mark.parametrize("kind", RUN_TIME_ADAPTERS)
def test_a_bad_run_time_adapter_is_refused(
    kind: str, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    (damage, message), adapter = RUN_TIME_ADAPTERS[kind], tmp_path / "adapter.gguf"
    damage(adapter)
    check_refused(thirteen("ask", good("model"), "Why?", "--adapter", adapter), message, out)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_bad_question_is_refused(kind: str, thirteen: Commands, good: Good, out: Path) -> None:
    words, message = QUESTIONS[kind]
    check_refused(
        thirteen("ask", good("model"), *([words] if isinstance(words, str) else words)), message, out
    )


@pytest.mark.parametrize("given", [b"", b" \n"])
def test_an_empty_question_from_standard_input_is_refused(
    given: bytes, thirteen: Commands, good: Good, out: Path
) -> None:
    check_refused(thirteen("ask", good("model"), "-", stdin=given), "the question is empty", out)


def test_a_question_that_is_not_utf_8_is_refused(thirteen: Commands, good: Good, out: Path) -> None:
    check_refused(thirteen("ask", good("model"), "-", stdin=b"\xff\xfe"), "standard input: not UTF-8", out)


@pytest.mark.parametrize(
    ("option", "written", "message"),
    [
        ("--schema", None, "No such file"),
        ("--schema", b"{", "schema: not JSON at line 1 column 2"),
        ("--schema", b"\xff", "not UTF-8: invalid start byte at byte 1"),
        ("--schema", b'{"type": "integer", "uniqueItems": true}', "uniqueItems"),
        ("--schema", b"[" * (1 << 21), "more than 65,536 bytes"),
        ("--grammar", b"", "grammar:"),
        ("--grammar", b"root ::= other", "other"),
        ("--grammar", b'root ::= "a', "grammar:"),
    ],
)
def test_a_bad_schema_or_grammar_is_refused(
    option: str,
    written: bytes | None,
    message: str,
    thirteen: Commands,
    good: Good,
    tmp_path: Path,
    out: Path,
) -> None:
    file = tmp_path / "constraint"
    if written is not None:
        file.write_bytes(written)
    check_refused(thirteen("ask", good("model"), "Why?", option, file), message, out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--regex", "a{2,1}"), "regex: "),
        (("--grammar", "FOLDER/rules.lark"), "%json"),
        (("--regex", "a", "--grammar", "FOLDER/rules.lark"), "exclude each other"),
    ],
)
def test_a_bad_expression_or_lark_grammar_is_refused(
    options: tuple[str, ...], message: str, thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "rules.lark").write_text("start: %json {}")
    words = [option.replace("FOLDER", str(tmp_path)) for option in options]
    check_refused(thirteen("ask", good("model"), "Why?", *words), message, out)


def test_an_answer_follows_an_expression_and_a_lark_grammar(
    thirteen: Commands, good: Good, tmp_path: Path
) -> None:
    (tmp_path / "rules.lark").write_text('start: "<" NUMBER ">"\nNUMBER: /[0-9]{3}/')
    for option, value, pattern in (
        ("--regex", "[x-z]{4}!", "[x-z]{4}!"),
        ("--grammar", str(tmp_path / "rules.lark"), "<[0-9]{3}>"),
    ):
        done = thirteen("ask", good("model"), "Why?", option, value, "--json")
        assert re.fullmatch(pattern, json.loads(done.stdout)["text"]), done.stderr


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_bad_command_line_is_refused(kind: str, thirteen: Commands, good: Good, out: Path) -> None:
    words, message = COMMANDS[kind]
    places = {"BASE": str(good("llama")), "MODEL": str(good("model")), "OUT": str(out)}
    parts = [[places.get(part, part) for part in word.split("/")] for word in words]
    check_refused(thirteen(*map("/".join, parts)), message, out)


# Targets


TARGETS = {
    "in a missing folder": ("OUT/none/model.gguf", "/none does not exist"),
    "in a file": ("BASE/config.json/model.gguf", "config.json does not exist"),
    "that is a folder": ("OUT", "out: is a folder, not a file"),
    "in a folder that is not writable": ("/proc/model.gguf", "/proc/model.gguf: "),
    "with a name of 300 characters": (f"OUT/{'x' * 300}", "File name too long"),
    "that is a device": ("/dev/null", "/dev/null: is not a regular file"),
    "that is a file of the base": (
        "BASE/model.safetensors",
        "model.safetensors: is an input of this command",
    ),
    "that is a file of the adapter": ("LORA/adapter_model.safetensors", "is an input of this command"),
    "that is also the report": ("OUT/report.json", "report.json"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_target_is_refused(kind: str, thirteen: Commands, good: Good, tmp_path: Path, out: Path) -> None:
    target, message = TARGETS[kind]
    base, adapter = (shutil.copytree(good(name), tmp_path / name) for name in ("llama", "lora"))
    before = contents(tmp_path)
    for place, path in {"OUT": out, "BASE": base, "LORA": adapter}.items():
        target = target.replace(place, str(path))
    report = ("--report", out / "report.json") if kind == "that is also the report" else ()
    check_refused(thirteen("convert", base, "--adapter", adapter, "-o", target, *report), message, out)
    if not report:
        check_refused(thirteen("adapter", "export", adapter, "--base", base, "-o", target), message, out)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_base_is_refused_as_a_target(thirteen: Commands, good: Good, tmp_path: Path, out: Path) -> None:
    base = Path(shutil.copy(good("model"), tmp_path / "base.gguf"))
    (tmp_path / "other-name.gguf").hardlink_to(base)
    for name in ("base.gguf", "other-name.gguf", "out/../base.gguf"):
        check_refused(thirteen("convert", base, "-o", tmp_path / name), "is an input of this command", out)
    assert base.read_bytes() == good("model").read_bytes()


def test_a_report_that_cannot_be_written_is_refused_at_the_start(
    thirteen: Commands, good: Good, tmp_path: Path, out: Path
) -> None:
    report = tmp_path / "none" / "report.json"
    done = thirteen("convert", good("llama"), "-o", out / "model.gguf", "--report", report)
    check_refused(done, "report.json: the folder", out)


@pytest.mark.parametrize("limit", [400, 9_000, 100_000])
def test_a_file_that_cannot_grow_leaves_nothing(
    limit: int, thirteen: Commands, good: Good, out: Path
) -> None:
    """The limits are in the header, in the metadata and in the tensors; the error line fits in each."""
    command = ("convert", good("llama"), "-o", out / "model.gguf", "--type", "F16")
    done = thirteen(*command, file_limit=limit)
    check_refused(done, "model.gguf: cannot write: File too large", out)
    check_done(thirteen(*command))
    before = (out / "model.gguf").read_bytes()
    assert len(before) > 100_000
    assert thirteen(*command, file_limit=limit).status == 2
    assert contents(out) == {out / "model.gguf": before}


@pytest.mark.parametrize(
    ("size", "message"), [(64, "are free on its disk"), (360, "No space left on device")]
)
def test_a_full_disk_leaves_nothing(
    size: int, message: str, thirteen: Commands, good: Good, out: Path
) -> None:
    """The first disk has no space for the tensors, the second has, but not for the metadata."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", out]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        check_refused(thirteen("convert", good("llama"), "-o", out / "m.gguf", "--type", "F32"), message, out)
    finally:
        subprocess.run(["umount", out], check=True)


# Interruptions


def interrupted(target: Path, number: int) -> tuple[int, str]:
    """Send a signal to a conversion while it writes; returns its exit status and its errors."""
    command = [sys.executable, "-m", "thirteen", "convert", "embedded", "-o", target]
    command += ["--threads", "1", "--type", "IQ4_NL"]
    part = target.with_name(f".{target.name}.part")
    reset = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job ignores it
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=reset) as running:  # noqa: PLW1509
        while not (part.exists() and part.stat().st_size > 1 << 20):
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.005)
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
    return running.returncode, errors


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(out: Path) -> None:
    status, errors = interrupted(out / "model.gguf", signal.SIGINT)
    assert (status, errors.split()) == (130, ["interrupted"])
    assert list(out.iterdir()) == []


def test_a_kill_leaves_no_target_and_the_next_run_succeeds(thirteen: Commands, good: Good, out: Path) -> None:
    status, _ = interrupted(out / "model.gguf", signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (out / "model.gguf").exists()
    check_done(thirteen("convert", good("model"), "-o", out / "model.gguf", "--type", "F16"))
    assert [path.name for path in out.iterdir()] == ["model.gguf"]
    check_done(thirteen("inspect", out / "model.gguf"))


# Undamaged inputs succeed, so each refusal above is due to the damage


@pytest.mark.parametrize("name", ["llama", "llama bf16 in shards", "llama wide", "qwen2", "model"])
def test_a_good_base_is_converted(name: str, thirteen: Commands, good: Good, out: Path) -> None:
    for type_ in ("F16", "Q8_0", "F32", "BF16"):
        check_done(thirteen("convert", good(name), "-o", out / "model.gguf", "--type", type_))
    check_done(thirteen("inspect", out / "model.gguf"))


@pytest.mark.parametrize("name", ["lora", "dora", "tinylora", "embedding"])
def test_a_good_adapter_is_merged(name: str, thirteen: Commands, good: Good, out: Path) -> None:
    base = good("qwen2" if name == "embedding" else "llama")
    options = ("--adapter", good(name), "--no-fidelity", "--type", "F32")
    check_done(thirteen("convert", base, *options, "-o", out / "model.gguf"))
    check_done(thirteen("adapter", "show", good(name)))
    if name in ("lora", "tinylora"):
        check_done(thirteen("adapter", "export", good(name), "--base", base, "-o", out / "lora.gguf"))


def test_a_good_model_answers(thirteen: Commands, good: Good, tmp_path: Path) -> None:
    adapter = adapter_gguf(tmp_path / "adapter.gguf")
    short = ("--max-tokens", "3", "--context", "256", "--temperature", "1", "--top-p", "0.5", "--stop", "x")
    for words in ([], ["--adapter", adapter]):
        done = thirteen("ask", good("model"), "Why?", *short, *words)
        assert done.status == 0, done
        assert "answer:" in done.stdout
