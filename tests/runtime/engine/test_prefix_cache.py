"""Prefix cache: it finds the longest prefix, keeps to its capacity, and verifies every file."""

import errno
import io
import json
import logging
import os
import resource
import tracemalloc
from hashlib import sha256
from itertools import takewhile
from operator import eq

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.prefix_cache import PREFIX_TOKENS_MIN, PrefixCache
from thirteen.runtime.request import PrefixKey, Request

from ..fixed_settings import FIXED
from ..gguf_adapters import write_lora

TOKENS = st.builds(
    lambda length, rest: (*range(length), *rest),
    st.integers(PREFIX_TOKENS_MIN - 2, PREFIX_TOKENS_MIN + 4),
    st.lists(st.integers(0, 1), max_size=4),
)
PROMPT = tuple(range(100, 150))


def state(tokens, nbytes=64):
    """Bytes that depend on the tokens."""
    return np.frombuffer(sha256(repr(tokens).encode()).digest() * (nbytes // 32), np.uint8)


def add(cache, *prompts, adapter="base", nbytes=64):
    for prompt in prompts:
        cache.add(PrefixKey(adapter), prompt, state(prompt, nbytes))


def shared_length(one, other):
    return sum(takewhile(bool, map(eq, one, other)))


@given(st.lists(st.tuples(st.sampled_from("ab"), TOKENS), max_size=12), st.lists(TOKENS, max_size=4))
def test_the_longest_prefix_is_found_under_its_adapter_and_never_the_whole_prompt(entries, prompts):
    cache = PrefixCache(1 << 20)
    for adapter, tokens in entries:
        add(cache, tokens, adapter=adapter)
    for prompt in (*prompts, *(tokens for _, tokens in entries)):
        for adapter in "ab":
            candidates = [tokens for name, tokens in entries if name == adapter]
            longest = max((shared_length(tokens, prompt[:-1]) for tokens in candidates), default=0)
            found = cache.find(PrefixKey(adapter), prompt)
            if longest < PREFIX_TOKENS_MIN:
                assert found is None
                continue
            assert found.length == longest < len(prompt)
            sources = [tokens for tokens in candidates if tokens[:longest] == prompt[:longest]]
            assert any(np.array_equal(found.state, state(tokens)) for tokens in sources)


@given(st.lists(st.tuples(TOKENS, st.integers(1, 6), st.booleans()), max_size=20))
def test_memory_keeps_to_its_capacity_and_the_most_recently_used_stay(steps):
    capacity = 256
    cache, latest = PrefixCache(capacity), []
    for tokens, size, seek in steps:
        if seek and (found := cache.find(PrefixKey("base"), tokens)):
            used = next(entry for entry in latest if np.array_equal(found.state, state(*entry)))
            latest.remove(used)
            latest.append(used)
        else:
            add(cache, tokens, nbytes=size * 32)
            latest = [entry for entry in latest if entry[0] != tokens[: len(entry[0])]]
            latest.append((tokens, size * 32))
        while sum(size for _, size in latest) > capacity:
            latest.pop(0)
        assert cache.nbytes == sum(size for _, size in latest) <= capacity


def test_a_prompt_replaces_its_prefixes():
    cache = PrefixCache(1 << 20)
    add(cache, PROMPT[:20], PROMPT[:30], (*PROMPT[:20], 1, 2, 3), PROMPT)
    assert cache.nbytes == 2 * 64, "an entry that is no prefix of it stays"
    assert np.array_equal(cache.find(PrefixKey("base"), PROMPT).state, state(PROMPT))


def test_clear_keeps_one_prefix_and_the_files(tmp_path):
    """Of a longer prompt only the prefix is kept, so that the rest is computed again."""
    cache, shared = PrefixCache(1 << 20), PROMPT[:20]
    add(cache, (*shared, 1, 2, 3), (*shared, 4, 5), tuple(range(30)))
    add(cache, (*shared, 6), adapter="other")
    cache.clear(PrefixKey("base"), keep=shared)
    found = cache.find(PrefixKey("base"), (*shared, 4, 5, 6))
    assert found.length == len(shared)
    assert np.array_equal(found.state, state((*shared, 1, 2, 3)))
    assert (
        cache.find(PrefixKey("base"), tuple(range(30)))
        is cache.find(PrefixKey("other"), (*shared, 6, 7))
        is None
    )
    assert cache.nbytes == 64
    cache.clear(PrefixKey("base"), keep=())
    assert cache.find(PrefixKey("base"), (*shared, 4, 5, 6)) is None and cache.nbytes == 0
    on_disk = PrefixCache(1 << 20, {"base": tmp_path})
    add(on_disk, PROMPT)
    on_disk.flush()
    on_disk.clear(PrefixKey("base"), keep=())
    assert on_disk.nbytes == 0
    assert np.array_equal(on_disk.find(PrefixKey("base"), (*PROMPT, 1)).state, state(PROMPT))


def test_a_new_cache_finds_the_bytes_in_the_folders_of_each_adapter(tmp_path):
    folders = {"base": tmp_path / "new" / "base", "a": tmp_path / "new" / "a"}
    cache = PrefixCache(1 << 20, folders)
    add(cache, PROMPT)
    add(cache, PROMPT[::-1], adapter="a")
    add(cache, PROMPT, adapter="without folder")
    cache.flush()
    again = PrefixCache(1 << 20, folders)
    assert again.nbytes == 0, "files are read when needed"
    assert np.array_equal(again.find(PrefixKey("base"), (*PROMPT, 1)).state, state(PROMPT))
    assert np.array_equal(again.find(PrefixKey("a"), (*PROMPT[::-1], 1)).state, state(PROMPT[::-1]))
    assert again.nbytes == 2 * 64
    assert (
        again.find(PrefixKey("a"), PROMPT) is None and again.find(PrefixKey("without folder"), PROMPT) is None
    )


def test_a_folder_keeps_to_the_capacity_and_the_most_recently_used_stay(tmp_path, caplog):
    size = 64 + len(json.dumps(["", PROMPT])) + 1
    cache = PrefixCache(3 * size, {"base": tmp_path})
    prompts = [tuple(token + 100 * n for token in PROMPT) for n in range(1, 6)]
    for at, prompt in enumerate(prompts):
        add(cache, prompt)
        before = set(tmp_path.iterdir())
        cache.flush()
        for path in set(tmp_path.iterdir()) - before:
            os.utime(path, (at, at))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 0 < total <= 3 * size
    again = PrefixCache(3 * size, {"base": tmp_path})
    found = [again.find(PrefixKey("base"), (*prompt, 1)) is not None for prompt in prompts]
    assert found == [False, False, True, True, True] and not caplog.records


def test_files_that_another_engine_deleted_are_ignored(tmp_path, caplog):
    add(first := PrefixCache(1 << 20, {"base": tmp_path}), PROMPT)
    first.flush()
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    for path in tmp_path.iterdir():
        path.unlink()
    assert cache.find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert not caplog.records


def test_files_are_readable_by_their_owner_only(tmp_path):
    folder = tmp_path / "cache" / "base"
    cache = PrefixCache(1 << 20, {"base": folder})
    add(cache, PROMPT)
    cache.flush()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def written(folder):
    """The one file of a cache with PROMPT."""
    cache = PrefixCache(1 << 20, {"base": folder})
    add(cache, PROMPT)
    cache.flush()
    (path,) = folder.iterdir()
    return path


def flip(data):
    return data[:-1] + bytes((data[-1] ^ 1,))


@pytest.mark.parametrize("change", [flip, lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_a_damaged_file_is_deleted_with_a_warning(tmp_path, caplog, change):
    path = written(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    assert PrefixCache(1 << 20, {"base": tmp_path}).find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert len(caplog.records) == 1 and path.name in caplog.text and "deleted" in caplog.text
    assert not path.exists()


@pytest.mark.parametrize("name", ["wrong", "0" * 64, "é"])
def test_a_file_under_a_wrong_name_is_deleted(tmp_path, caplog, name):
    path = written(tmp_path)
    path = path.rename(path.with_stem(name))
    assert PrefixCache(1 << 20, {"base": tmp_path}).find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert path.name in caplog.text and not path.exists()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}\n",
        b"[true]\n",
        b'["1"]\n',
        b"[" * 100_000 + b"\n",
        b"[" + b"1" * 10_000 + b"]\n",
        b"\xff\xfe\n",
    ],
)
def test_a_file_without_tokens_is_deleted_with_a_warning(tmp_path, caplog, header):
    """Even if its name matches its hash."""
    path = tmp_path / f"{sha256(header).hexdigest()}.prefix"
    path.write_bytes(header)
    assert PrefixCache(1 << 20, {"base": tmp_path}).find(PrefixKey("base"), PROMPT) is None
    assert path.name in caplog.text and not path.exists()


def test_other_files_in_the_folder_stay_and_do_no_harm(tmp_path, caplog):
    path = written(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "a folder.prefix").mkdir()
    (tmp_path / "nowhere.prefix").symlink_to(tmp_path / "missing")
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    assert np.array_equal(cache.find(PrefixKey("base"), (*PROMPT, 1)).state, state(PROMPT))
    assert (tmp_path / "notes.txt").read_text() == "mine" and path.exists()
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("above", ["", "deeper"])
def test_a_folder_that_cannot_be_written_only_costs_a_warning(tmp_path, caplog, above):
    (tmp_path / "file").write_text("in the way")
    cache = PrefixCache(1 << 20, {"base": tmp_path / "file" / above, "a": tmp_path / "a"})
    add(cache, PROMPT)
    add(cache, PROMPT, adapter="a")
    cache.flush()
    assert "prefix cache" in caplog.text and len(caplog.records) == 1
    assert np.array_equal(cache.find(PrefixKey("base"), (*PROMPT, 1)).state, state(PROMPT))
    assert len(list((tmp_path / "a").iterdir())) == 1, "the other folder is written"


@pytest.mark.parametrize("nbytes", [64, 1 << 16])
def test_a_failed_write_leaves_no_temporary_file(tmp_path, caplog, nbytes):
    """Like a full disk, a limit of the file size may only show when the file is closed."""
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    add(cache, PROMPT, nbytes=nbytes)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32, hard))
    try:
        cache.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(caplog.records) == 1 and not list(tmp_path.iterdir())
    cache.flush()
    assert len(list(tmp_path.iterdir())) == 1, "a later write succeeds"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_is_not_used(tmp_path, caplog, mode):
    """A planted KV cache would decide the answers."""
    path = written(tmp_path)
    tmp_path.chmod(mode)
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    assert cache.find(PrefixKey("base"), (*PROMPT, 1)) is None
    add(cache, PROMPT[::-1])
    cache.flush()
    assert list(tmp_path.iterdir()) == [path] and "others can write to it" in caplog.text


def test_a_link_to_a_folder_is_not_used(tmp_path, caplog):
    (tmp_path / "real").mkdir()
    written(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert PrefixCache(1 << 20, {"base": tmp_path / "link"}).find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert "it is not a folder" in caplog.text


def test_a_file_larger_than_the_cache_is_not_read(tmp_path, caplog):
    """A sparse file of any size was read whole into memory."""
    path = written(tmp_path)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    assert cache.find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert path.exists() and not caplog.records


def test_a_small_file_takes_little_memory_whatever_the_capacity(tmp_path):
    """All of the capacity was allocated, and exceeded limits on address space."""
    written(tmp_path)
    cache = PrefixCache(1 << 30, {"base": tmp_path})
    tracemalloc.start()
    assert np.array_equal(cache.find(PrefixKey("base"), (*PROMPT, 1)).state, state(PROMPT))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_that_grew_after_it_was_listed_is_deleted_unread(tmp_path, caplog):
    path = written(tmp_path)
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    assert cache.find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert not path.exists() and len(caplog.records) == 1


# With the real library.

QUESTION = tuple(b"Tom has 3 apples and buys 4 more. How many apples does he have? ")
OPTIONS = FIXED | {"context": 128, "slots": 1, "batch": 32}


# Half as many heads of twice the width: q8_0 has blocks of 32.
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
    """The tokens of each request, one after the other, and how many tokens of its prompt were cached."""
    found = []
    for prompt in prompts:
        handle = engine.submit(Request(prompt, 24, adapter=adapter, ignore_end=True))
        tokens = [token for piece in handle for token in piece.tokens]
        found.append((tokens, handle.answer().usage.cached_tokens))
    return found


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_restored_prefix_gives_the_same_tokens_as_a_computed_one(wide_heads, tmp_path, kv):
    """One slot; prefill in batches of 32, which differ from those after a restored prefix."""
    first, second = QUESTION, QUESTION[:50] + tuple(b"Or does he want some pears? ")
    with Engine(wide_heads, **OPTIONS | {"kv": kv, "prefix_bytes": 0}) as engine:
        (one, _), (other, _) = greedy(engine, first, second)
    assert one != other
    with Engine(wide_heads, **OPTIONS | {"kv": kv, "prefix_folder": tmp_path}) as engine:
        assert greedy(engine, first, second, first) == [(one, 0), (other, 50), (one, len(first) - 1)]
    with Engine(wide_heads, **OPTIONS | {"kv": kv, "prefix_folder": tmp_path}) as engine:
        assert greedy(engine, first, second) == [(one, len(first) - 1), (other, len(second) - 1)]


def test_prefixes_restored_into_several_slots_give_the_same_tokens(tiny):
    """Three slots, in one batch from the first token on; only the prefill of the first prompt differs."""
    prompts = [QUESTION + tuple(f"{n}".encode()) for n in range(3)]
    found = []
    for prefix_bytes in (0, 1 << 20):
        with Engine(tiny, prefix_bytes=prefix_bytes, **OPTIONS | {"slots": 3, "batch": 256}) as engine:
            handles = engine.submit_all([Request(prompt, 24, ignore_end=True) for prompt in prompts])
            found.append([[t for piece in handle for t in piece.tokens] for handle in handles])
            cached = [handle.answer().usage.cached_tokens for handle in handles]
            assert cached == ([0] * 3 if not prefix_bytes else [0, *[len(QUESTION)] * 2])
    assert found[0] == found[1]


def test_a_file_of_other_options_or_another_adapter_or_model_is_never_used(wide_heads, write_tiny, tmp_path):
    folder, zeros = tmp_path / "cache", np.zeros((64, 64), np.float32)
    other = write_tiny(tmp_path / "other.gguf", WIDE, {"blk.0.attn_output.weight": zeros})
    loras = [write_lora(tmp_path / f"{n}.gguf", seed=n) for n in range(2)]
    cases = [
        (wide_heads, {}),
        (wide_heads, {"kv": "q8_0"}),
        (wide_heads, {"slots": 2}),
        (wide_heads, {"adapter": loras[0]}),
        (wide_heads, {"adapter": loras[1]}),
        (other, {}),
    ]
    for model, options in cases:
        with Engine(model, prefix_bytes=0, **OPTIONS | options) as engine:
            expected = greedy(engine, QUESTION)
        with Engine(model, prefix_folder=folder, **OPTIONS | options) as engine:
            assert greedy(engine, QUESTION) == expected
        with Engine(model, prefix_folder=folder, **OPTIONS | options) as engine:
            assert greedy(engine, QUESTION) == [(expected[0][0], len(QUESTION) - 1)]
    assert len(list(folder.iterdir())) == len(cases)


def test_a_file_belongs_to_an_adapter_by_its_contents_and_not_its_name(tiny, tmp_path):
    lora = write_lora(tmp_path / "lora.gguf", seed=1)
    with Engine(tiny, adapters={"a": lora}, prefix_folder=tmp_path, **OPTIONS) as engine:
        greedy(engine, QUESTION, adapter="a")
    with Engine(tiny, adapters={"b": lora}, prefix_folder=tmp_path, **OPTIONS) as engine:
        assert greedy(engine, QUESTION, adapter="b")[0][1] == len(QUESTION) - 1
    write_lora(lora, seed=2)
    with Engine(tiny, adapters={"b": lora}, prefix_folder=tmp_path, **OPTIONS) as engine:
        assert greedy(engine, QUESTION, adapter="b")[0][1] == 0


def test_a_namespace_learns_nothing_of_another_but_the_templates_beginning():
    cache = PrefixCache(1 << 20)
    ours, theirs = PrefixKey("base", "ours"), PrefixKey("base", "theirs")
    cache.add(ours, PROMPT, state(PROMPT))
    assert cache.find(theirs, (*PROMPT, 1)) is None
    cache.shared = PROMPT[:20]
    assert [cache.find(key, (*PROMPT, 1)).length for key in (ours, theirs)] == [len(PROMPT), 20]
    cache.shared = PROMPT[: PREFIX_TOKENS_MIN - 1]
    assert cache.find(theirs, (*PROMPT, 1)) is None
    cache.add(theirs, (*PROMPT, 1), state((*PROMPT, 1)))
    assert cache.find(ours, (*PROMPT, 1, 2)).length == len(PROMPT), (
        "not replaced by another namespace's entry"
    )


def test_namespaces_outlive_the_process(tmp_path):
    cache = PrefixCache(1 << 20, {"base": tmp_path})
    cache.add(PrefixKey("base", "ours"), PROMPT, state(PROMPT))
    cache.flush()
    again = PrefixCache(1 << 20, {"base": tmp_path})
    assert again.find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert again.find(PrefixKey("base", "ours"), (*PROMPT, 1)).length == len(PROMPT)


def test_a_file_that_cannot_be_opened_now_is_not_damaged(tmp_path, caplog):
    """A server with too many open files deleted the states that it could not open."""
    path, cache = written(tmp_path), PrefixCache(1 << 20, {"base": tmp_path})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert cache.find(PrefixKey("base"), (*PROMPT, 1)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in caplog.text and path.exists()
    assert PrefixCache(1 << 20, {"base": tmp_path}).find(PrefixKey("base"), (*PROMPT, 1))


def test_a_listed_file_that_cannot_be_opened_stays(tmp_path, caplog, monkeypatch):
    path, open_ = written(tmp_path), io.open

    def fail(file, *options, **more):
        if file == path:
            raise OSError(errno.EMFILE, "Too many open files")
        return open_(file, *options, **more)

    monkeypatch.setattr(io, "open", fail)
    assert PrefixCache(1 << 20, {"base": tmp_path}).find(PrefixKey("base"), (*PROMPT, 1)) is None
    assert path.exists() and not caplog.records
