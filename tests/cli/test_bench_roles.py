"""`thirteen bench …`: a file has the role of its place on the command line, or of its option."""

import json

import numpy as np
import pytest

from ..runtime.conftest import EMBEDDING, write_gguf

ROLES = ("reference", "shipped", "base", "shipped_base", "adapted")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Different models, each named after its role, and questions."""
    folder = tmp_path_factory.mktemp("roles")
    files = {name: folder / name for name in (*ROLES, "questions")}
    for number, role in enumerate(ROLES):
        write_gguf(files[role], {}, {"output_norm.weight": np.full(EMBEDDING, 1 + number / 8, np.float32)})
    files["questions"].write_text('{"question": "1 + 1?", "answer": "2"}\n')
    return files


@pytest.mark.parametrize(
    "words",
    [
        "fidelity reference shipped --base base --shipped-base shipped_base --data questions --tokens 4",
        "accuracy adapted --base base --data questions --timed 0 --max-tokens 2",
    ],
    ids=["fidelity", "accuracy"],
)
def test_each_file_has_the_role_that_it_is_given(words, thirteen, files):
    done = thirteen("bench", *(files.get(word, word) for word in words.split()), "--threads", 1, "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    for role in {*ROLES} & {*words.split()}:
        assert report[role].get("file", report[role])["path"] == str(files[role])
