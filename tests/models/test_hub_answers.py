"""A malicious hub: what it sends never becomes a path outside the cache."""

import json
import os
import re
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import FileError
from thirteen.models.hub_answers import _check_listing

from .hub_server import Repository, serve
from .test_fetch import BASE, NEW, Child

pytestmark = pytest.mark.slow

FILES = BASE | {"tokenizer_config.json": b"{}"}


def tree(*entries: object) -> dict[str, object]:
    return {"tree": [{"type": "file", "oid": "0" * 40, "size": 2, "path": "config.json"}, *entries]}


def entry(path: str = "model.safetensors", oid: str = "0" * 40, **lfs: object) -> dict[str, object]:
    return {"type": "file", "path": path, "oid": oid, "size": 2} | ({"lfs": lfs} if lfs else {})


ATTACKS = {
    "ETag with traversal": ({"ETag": '"../../../escaped"'}, {}, "ETag"),
    "ETag with an absolute path": ({"ETag": '"{outside}/escaped"'}, {}, "ETag"),
    "linked ETag": ({"X-Linked-Etag": '"../../../escaped"'}, {}, "ETag"),
    "weak ETag": ({"ETag": 'W/"../../escaped"'}, {}, "ETag"),
    "existing target": ({"ETag": '"{outside}/existing"'}, {}, "ETag"),
    "commit of a file": ({"X-Repo-Commit": "../../../escaped"}, {}, "commit"),
    "commit of the repository": ({}, {"info": {"id": "a/b", "sha": "../../../escaped"}}, "commit"),
    "hash of a large file": (
        {},
        tree(entry(oid="0" * 40, size=2) | {"lfs": {"oid": "../e", "size": 2}}),
        "hash",
    ),
    "tree of another shape": ({}, {"tree": [1, 2]}, "another shape"),
    "tree without paths": ({}, {"tree": [{"type": "file"}]}, "KeyError"),
    "tree that is a text": ({}, {"tree": "files"}, "another shape"),
    "file name that is a number": ({}, tree(entry() | {"path": 3}), "TypeError"),
    "size that is a text": (
        {},
        tree({"type": "file", "path": "a", "oid": "0" * 40, "size": "2"}),
        "in the hub",
    ),
    "redirect to a file": ({"Location": "file://{outside}/existing"}, {}, ""),
    "redirect to no host": ({"Location": "http://xn--\xff/"}, {}, "InvalidURL"),
    "repository that is a list": ({}, {"info": []}, "TypeError"),
    "repository without an id": ({}, {"info": {"sha": NEW}}, "KeyError: 'id'"),
    "repository without a commit": ({}, {"info": {"id": "a/b"}}, "AssertionError"),
    "date that is a number": ({}, {"info": {"id": "a/b", "sha": NEW, "createdAt": 1}}, "AttributeError"),
    "large file without a hash": ({}, tree(entry() | {"lfs": {"size": 2}}), "KeyError: 'oid'"),
}


@contextmanager
def asking(repository, home):
    """A process that asks a hub with this repository."""
    with serve({"some/base": repository}) as hub, closing(Child(hub.url, home)) as child:
        yield child


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A hub, and one process that asks it for the repositories of all attacks; the folder above its cache."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "outside").mkdir()
    (folder / "outside/existing").write_text("mine")
    with serve({}) as hub, closing(Child(hub.url, folder / "deep" / "in" / "home")) as child:
        yield hub, child, folder


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_written_outside_the_cache(name, attacked):
    (headers, answers, message), (hub, child, folder) = ATTACKS[name], attacked
    headers = {key: value.format(outside=folder / "outside") for key, value in headers.items()}
    repository = f"some/{name.replace(' ', '-')}"
    hub.repositories[repository] = Repository({NEW: FILES}, {"main": NEW}, headers=headers, answers=answers)
    assert message in child.error(repository)
    assert [path.name for path in (folder / "outside").iterdir()] == ["existing"]
    assert (folder / "outside/existing").read_text() == "mine"
    assert not list(folder.rglob("*escaped*"))


def test_a_link_that_leads_outside_the_cache_is_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(FILES["model.safetensors"])
    with asking(Repository({NEW: FILES}, {"main": NEW}), tmp_path / "home") as child:
        folder = child.path("some/base")
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(secret)
        assert "leads outside the folder" in child.error("some/base")
    assert secret.exists()


def test_a_large_index_of_a_download_is_not_parsed(tmp_path):
    """One of 57 MiB took 1.4 GiB of memory."""
    index = {"model.safetensors.index.json": json.dumps({"weight_map": {"a": "b" * (1 << 22)}}).encode()}
    with asking(Repository({NEW: FILES | index}, {"main": NEW}), tmp_path / "home") as child:
        assert "index.json: more than 4,194,304 bytes" in child.error("some/base")


def test_a_branch_whose_weights_have_changed_is_told(tmp_path, capfd):
    other = "3" * 40
    commits = {NEW: FILES, other: FILES | {"model.safetensors": os.urandom(1_000)}}
    repository = Repository(commits, {"main": NEW})
    with asking(repository, tmp_path / "home") as child:
        child.path("some/base")
        assert capfd.readouterr().err == ""
        repository.refs["main"] = other
        assert child.path("some/base").name == other
    assert re.search(rf"some/base@main has changed .* {NEW} then, {other} now", capfd.readouterr().err)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["sha", "siblings", "path", "rfilename", "oid", "lfs", "size"]), inner
            )
        ),
        max_leaves=8,
    )
)
def test_any_listing_is_accepted_or_refused_in_one_line(listing):
    try:
        _check_listing(json.dumps(listing).encode())
    except FileError as error:
        assert "\n" not in str(error)
