"""The prefix cache: it finds the longest beginning, keeps to its bounds, and believes no file unseen."""

import json
import logging
import os
import resource
from hashlib import sha256
from itertools import takewhile
from operator import eq

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prefix_cache import LENGTH_MIN, PrefixCache
from thirteen.runtime.request import Request

from ..gguf_adapters import write_lora

TOKENS = st.builds(
    lambda beginning, rest: (*range(beginning), *rest),
    st.integers(LENGTH_MIN - 2, LENGTH_MIN + 4),
    st.lists(st.integers(0, 1), max_size=4),
)
PROMPT = tuple(range(100, 150))


def blob(tokens, nbytes=64):
    """Bytes that tell which tokens they are of."""
    return np.frombuffer(sha256(repr(tokens).encode()).digest() * (nbytes // 32), np.uint8)


def keep(cache, *prompts, adapter="base", nbytes=64):
    for prompt in prompts:
        cache.keep(adapter, prompt, blob(prompt, nbytes))


def common(one, other):
    return sum(takewhile(bool, map(eq, one, other)))


@given(st.lists(st.tuples(st.sampled_from("ab"), TOKENS), max_size=12), st.lists(TOKENS, max_size=4))
def test_the_longest_beginning_is_found_under_its_adapter_and_never_the_whole_prompt(kept, prompts):
    cache = PrefixCache(1 << 20)
    for adapter, tokens in kept:
        keep(cache, tokens, adapter=adapter)
    for prompt in (*prompts, *(tokens for _, tokens in kept)):
        for adapter in "ab":
            alike = [tokens for under, tokens in kept if under == adapter]
            longest = max((common(tokens, prompt[:-1]) for tokens in alike), default=0)
            found = cache.find(adapter, prompt)
            if longest < LENGTH_MIN:
                assert found is None
                continue
            assert found.length == longest < len(prompt)
            sources = [tokens for tokens in alike if tokens[:longest] == prompt[:longest]]
            assert any(np.array_equal(found.blob, blob(tokens)) for tokens in sources)


@given(st.lists(st.tuples(TOKENS, st.integers(1, 6), st.booleans()), max_size=20))
def test_memory_keeps_to_its_bound_and_the_latest_used_stay(steps):
    bound = 256
    cache, latest = PrefixCache(bound), []
    for tokens, size, seek in steps:
        if seek and (found := cache.find("base", tokens)):
            used = next(entry for entry in latest if np.array_equal(found.blob, blob(*entry)))
            latest.remove(used)
            latest.append(used)
        else:
            keep(cache, tokens, nbytes=size * 32)
            latest = [entry for entry in latest if entry[0] != tokens[: len(entry[0])]]
            latest.append((tokens, size * 32))
        while sum(size for _, size in latest) > bound:
            latest.pop(0)
        assert cache.nbytes == sum(size for _, size in latest) <= bound


def test_a_prompt_takes_the_place_of_its_beginnings():
    cache = PrefixCache(1 << 20)
    keep(cache, PROMPT[:20], PROMPT[:30], (*PROMPT[:20], 1, 2, 3), PROMPT)
    assert cache.nbytes == 2 * 64, "that which is no beginning of it stays"
    assert np.array_equal(cache.find("base", PROMPT).blob, blob(PROMPT))


def test_what_is_larger_than_the_bound_is_not_kept_and_nothing_goes_for_it():
    cache = PrefixCache(64)
    keep(cache, PROMPT)
    keep(cache, (*PROMPT, 1), nbytes=96)
    assert np.array_equal(cache.find("base", (*PROMPT, 1)).blob, blob(PROMPT))


def test_all_but_one_beginning_is_forgotten_and_files_stay(tmp_path):
    """Of a longer prompt only the beginning is kept, so that what followed it is computed anew."""
    cache, shared = PrefixCache(1 << 20), PROMPT[:20]
    keep(cache, (*shared, 1, 2, 3), (*shared, 4, 5), tuple(range(30)))
    keep(cache, (*shared, 6), adapter="other")
    cache.forget("base", shared)
    found = cache.find("base", (*shared, 4, 5, 6))
    assert found.length == len(shared)
    assert np.array_equal(found.blob, blob((*shared, 1, 2, 3)))
    assert cache.find("base", tuple(range(30))) is cache.find("other", (*shared, 6, 7)) is None
    assert cache.nbytes == 64
    cache.forget("base", ())
    assert cache.find("base", (*shared, 4, 5, 6)) is None and cache.nbytes == 0
    on_disk = PrefixCache(1 << 20, {"base": tmp_path})
    keep(on_disk, PROMPT)
    on_disk.flush()
    on_disk.forget("base", ())
    assert on_disk.nbytes == 0
    assert np.array_equal(on_disk.find("base", (*PROMPT, 1)).blob, blob(PROMPT))


def test_a_new_cache_finds_the_bytes_in_the_folders_of_each_adapter(tmp_path):
    folders = {"base": tmp_path / "new" / "base", "a": tmp_path / "new" / "a"}
    cache = PrefixCache(1 << 20, folders)
    keep(cache, PROMPT)
    keep(cache, PROMPT[::-1], adapter="a")
    keep(cache, PROMPT, adapter="of no folder")
    cache.flush()
    again = PrefixCache(1 << 20, folders)
    assert again.nbytes == 0, "files are read when they are wanted"
    assert np.array_equal(again.find("base", (*PROMPT, 1)).blob, blob(PROMPT))
    assert np.array_equal(again.find("a", (*PROMPT[::-1], 1)).blob, blob(PROMPT[::-1]))
    assert again.nbytes == 2 * 64
    assert again.find("a", PROMPT) is None and again.find("of no folder", PROMPT) is None


def test_what_was_forgotten_in_memory_is_found_in_the_folder(tmp_path):
    cache, size = PrefixCache(2500, {"base": tmp_path}), 1024
    keep(cache, PROMPT, nbytes=size)
    cache.flush()
    keep(cache, PROMPT[::-1], PROMPT[10:], nbytes=size)
    assert cache.nbytes == 2 * size
    assert np.array_equal(cache.find("base", (*PROMPT, 1)).blob, blob(PROMPT, size))
    assert cache.nbytes == 2 * size


def test_a_folder_keeps_to_the_bound_and_its_latest_used_stay(tmp_path, caplog):
    size = 64 + len(json.dumps(PROMPT)) + 1
    cache = PrefixCache(3 * size, {"base": tmp_path})
    prompts = [tuple(token + 100 * n for token in PROMPT) for n in range(1, 6)]
    for at, prompt in enumerate(prompts):
        keep(cache, prompt)
        before = set(tmp_path.iterdir())
        cache.flush()
        for path in set(tmp_path.iterdir()) - before:
            os.utime(path, (at, at))
    kept = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 0 < kept <= 3 * size
    again = PrefixCache(3 * size, {"base": tmp_path})
    found = [again.find("base", (*prompt, 1)) is not None for prompt in prompts]
    assert found == [False, False, True, True, True] and not caplog.records


def test_files_that_another_engine_took_out_are_simply_not_there(tmp_path, caplog):
    keep(first := PrefixCache(1 << 20, {"base": tmp_path}), PROMPT)
    first.flush()
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    for path in tmp_path.iterdir():
        path.unlink()
    assert cache.find("base", (*PROMPT, 1)) is None
    assert not caplog.records


def test_prompts_are_for_their_owner_only(tmp_path):
    folder = tmp_path / "cache" / "base"
    cache = PrefixCache(1 << 20, {"base": folder})
    keep(cache, PROMPT)
    cache.flush()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def written(folder):
    """The one file of a cache that knows PROMPT."""
    cache = PrefixCache(1 << 20, {"base": folder})
    keep(cache, PROMPT)
    cache.flush()
    (path,) = folder.iterdir()
    return path


def flip(data):
    return data[:-1] + bytes((data[-1] ^ 1,))


@pytest.mark.parametrize("change", [flip, lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_a_file_that_is_not_what_was_written_is_dropped_with_a_warning(tmp_path, caplog, change):
    path = written(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    assert PrefixCache(1 << 20, {"base": tmp_path}).find("base", (*PROMPT, 1)) is None
    assert len(caplog.records) == 1 and path.name in caplog.text and "dropped" in caplog.text
    assert not path.exists()


def test_a_file_that_changes_once_it_is_listed_is_dropped_too(tmp_path, caplog):
    path = written(tmp_path)
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    path.write_bytes(flip(path.read_bytes()))
    assert cache.find("base", (*PROMPT, 1)) is None
    assert path.name in caplog.text and not path.exists()


@pytest.mark.parametrize("name", ["wrong", "0" * 64, "é"])
def test_a_file_under_a_wrong_name_is_dropped(tmp_path, caplog, name):
    path = written(tmp_path)
    path = path.rename(path.with_stem(name))
    assert PrefixCache(1 << 20, {"base": tmp_path}).find("base", (*PROMPT, 1)) is None
    assert path.name in caplog.text and not path.exists()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\n",
        b"{}\n",
        b"7\n",
        b"null\n",
        b"[true]\n",
        b"[1.5]\n",
        b'["1"]\n',
        b"[1, 2\n",
        b"[" * 100_000 + b"\n",
        b"[" + b"1" * 10_000 + b"]\n",
        b"\xff\xfe\n",
    ],
)
def test_a_file_without_tokens_is_dropped_with_a_warning(tmp_path, caplog, header):
    """The name is right: whoever wrote it there knew what a name is."""
    path = tmp_path / f"{sha256(header).hexdigest()}.prefix"
    path.write_bytes(header)
    assert PrefixCache(1 << 20, {"base": tmp_path}).find("base", PROMPT) is None
    assert path.name in caplog.text and not path.exists()


def test_a_file_of_tokens_and_no_line_is_dropped_when_it_is_wanted(tmp_path, caplog):
    header = json.dumps(PROMPT).encode()
    path = tmp_path / f"{sha256(header).hexdigest()}.prefix"
    path.write_bytes(header)
    found = PrefixCache(1 << 20, {"base": tmp_path}).find("base", (*PROMPT, 1))
    assert found is None and path.name in caplog.text and not path.exists()


def test_what_else_is_in_the_folder_stays_and_does_no_harm(tmp_path, caplog):
    kept = written(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "a folder.prefix").mkdir()
    (tmp_path / "nowhere.prefix").symlink_to(tmp_path / "missing")
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    assert np.array_equal(cache.find("base", (*PROMPT, 1)).blob, blob(PROMPT))
    assert (tmp_path / "notes.txt").read_text() == "mine" and kept.exists()
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("above", ["", "deeper"])
def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog, above):
    (tmp_path / "file").write_text("in the way")
    cache = PrefixCache(1 << 20, {"base": tmp_path / "file" / above, "a": tmp_path / "a"})
    keep(cache, PROMPT)
    keep(cache, PROMPT, adapter="a")
    cache.flush()
    assert "prefix cache" in caplog.text and len(caplog.records) == 1
    assert np.array_equal(cache.find("base", (*PROMPT, 1)).blob, blob(PROMPT))
    assert len(list((tmp_path / "a").iterdir())) == 1, "the others are written"


@pytest.mark.parametrize("nbytes", [64, 1 << 16])
def test_a_write_that_fails_leaves_no_temporary_behind(tmp_path, caplog, nbytes):
    """A full disk, which a bound on the size of files stands for, may show when the file is closed."""
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    keep(cache, PROMPT, nbytes=nbytes)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32, hard))
    try:
        cache.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(caplog.records) == 1 and not list(tmp_path.iterdir())
    cache.flush()
    assert len(list(tmp_path.iterdir())) == 1, "a later one succeeds"


def test_a_name_that_is_taken_by_a_folder_leaves_no_temporary_behind(tmp_path, caplog):
    path = written(tmp_path)
    path.unlink()
    (path / "not empty").mkdir(parents=True)
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    keep(cache, PROMPT)
    cache.flush()
    assert caplog.records and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that another user reads")
def test_files_that_can_only_be_read_are_used(tmp_path, caplog):
    path = written(tmp_path)
    path.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        found = PrefixCache(1 << 20, {"base": tmp_path}).find("base", (*PROMPT, 1))
    finally:
        os.seteuid(0)
    assert np.array_equal(found.blob, blob(PROMPT)) and not caplog.records


# With the real library.

QUESTION = tuple(b"Tom has 3 apples and buys 4 more. How many apples does he have? ")
ROOM = {"context": 128, "slots": 1, "threads": 1, "batch": 32}


# Half as many heads of twice the width, since q8_0 goes by 32 numbers.
WIDE = {
    key: (value, gguf.GGUFValueType.UINT32, None)
    for key, value in {
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.rope.dimension_count": 32,
    }.items()
}


@pytest.fixture(scope="module")
def wide_heads(tmp_path_factory, write_tiny):
    return write_tiny(tmp_path_factory.mktemp("wide") / "wide.gguf", WIDE)


def greedy(engine, *prompts, adapter=None):
    """The tokens of each request, one after the other, and how much of its prompt was there already."""
    found = []
    for prompt in prompts:
        handle = engine.submit(Request(prompt, 24, adapter=adapter, ignore_end=True))
        tokens = [token for piece in handle for token in piece.tokens]
        found.append((tokens, handle.answer().usage.cached_tokens))
    return found


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_restored_beginning_gives_the_tokens_that_it_gives_when_computed(wide_heads, tmp_path, kv):
    """One slot; prompts in batches of 32, so their pieces are others than after a restored beginning."""
    first, second = QUESTION, QUESTION[:50] + tuple(b"Or does he want some pears? ")
    with Engine(wide_heads, kv=kv, prefix_bytes=0, **ROOM) as engine:
        (one, _), (other, _) = greedy(engine, first, second)
    assert one != other
    with Engine(wide_heads, kv=kv, prefix_folder=tmp_path, **ROOM) as engine:
        assert greedy(engine, first, second, first) == [(one, 0), (other, 50), (one, len(first) - 1)]
    with Engine(wide_heads, kv=kv, prefix_folder=tmp_path, **ROOM) as engine:
        assert greedy(engine, first, second) == [(one, len(first) - 1), (other, len(second) - 1)]


def test_restored_beginnings_of_several_at_once_give_the_same_tokens(tiny):
    """Three slots, all in one batch from the first token on: alone, the step of the first prompt differs."""
    prompts = [QUESTION + tuple(f"{n}".encode()) for n in range(3)]
    found = []
    for prefix_bytes in (0, 1 << 20):
        with Engine(tiny, prefix_bytes=prefix_bytes, **ROOM | {"slots": 3, "batch": 256}) as engine:
            handles = engine.submit_all([Request(prompt, 24, ignore_end=True) for prompt in prompts])
            found.append([[t for piece in handle for t in piece.tokens] for handle in handles])
            cached = [handle.answer().usage.cached_tokens for handle in handles]
            assert cached == ([0] * 3 if not prefix_bytes else [0, *[len(QUESTION)] * 2])
    assert found[0] == found[1]


def test_the_logits_after_a_restored_beginning_are_those_of_the_computed_one(smollm2):
    """But for rounding: the last token of a prompt is computed by itself then."""
    question = "Tom has 3 apples and buys 4 more. How many apples does he have?"
    with Engine(smollm2, context=128, slots=1, threads=1) as engine:
        native, prompt = engine._runner._native, engine.request(question).tokens
        rows, logprob = [], native.logprob

        def looked(row, token, top):
            rows.append(native.logits_row(row).copy())
            return logprob(row, token, top)

        native.logprob = looked
        ends = [engine.submit(Request(prompt, 1, logprobs=0)).wait() for _ in range(2)]
    assert [end.usage.cached_tokens for end in ends] == [0, len(prompt) - 1]
    computed, restored = rows
    assert np.abs(computed - restored).max() < 0.05 * computed.std()
    assert computed.argmax() == restored.argmax()


def test_a_file_of_another_kind_or_adapter_or_model_is_never_used(wide_heads, write_tiny, tmp_path):
    folder, silent = tmp_path / "cache", np.zeros((64, 64), np.float32)
    other = write_tiny(tmp_path / "other.gguf", WIDE, {"blk.0.attn_output.weight": silent})
    loras = [write_lora(tmp_path / f"{n}.gguf", seed=n) for n in range(2)]
    kinds = [
        (wide_heads, {}),
        (wide_heads, {"kv": "q8_0"}),
        (wide_heads, {"slots": 2}),
        (wide_heads, {"adapter": loras[0]}),
        (wide_heads, {"adapter": loras[1]}),
        (other, {}),
    ]
    for model, options in kinds:
        with Engine(model, prefix_bytes=0, **ROOM | options) as engine:
            expected = greedy(engine, QUESTION)
        with Engine(model, prefix_folder=folder, **ROOM | options) as engine:
            assert greedy(engine, QUESTION) == expected
        with Engine(model, prefix_folder=folder, **ROOM | options) as engine:
            assert greedy(engine, QUESTION) == [(expected[0][0], len(QUESTION) - 1)]
    assert len(list(folder.iterdir())) == len(kinds)


def test_a_file_is_an_adapters_by_what_the_adapter_is_and_not_by_its_name(tiny, tmp_path):
    lora = write_lora(tmp_path / "lora.gguf", seed=1)
    with Engine(tiny, adapters={"a": lora}, prefix_folder=tmp_path, **ROOM) as engine:
        greedy(engine, QUESTION, adapter="a")
    with Engine(tiny, adapters={"b": lora}, prefix_folder=tmp_path, **ROOM) as engine:
        assert greedy(engine, QUESTION, adapter="b")[0][1] == len(QUESTION) - 1
    write_lora(lora, seed=2)
    with Engine(tiny, adapters={"b": lora}, prefix_folder=tmp_path, **ROOM) as engine:
        assert greedy(engine, QUESTION, adapter="b")[0][1] == 0
