"""Every command that loads a model tries one of others first: a crash there is one line."""

import os

import numpy as np
import pytest

from ..runtime.conftest import write_gguf

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

COMMANDS = {
    "ask": ("ask", "MODEL", "1 + 1?"),
    "serve": ("serve", "MODEL", "--port", "0"),
    "batch": ("batch", "QUESTIONS", "MODEL", "--out", "OUT", "--threads", "1"),
    "accuracy": ("bench", "accuracy", "MODEL", "--data", "QUESTIONS"),
    "fidelity": ("bench", "fidelity", "MODEL", "MODEL"),
    "latency": ("bench", "latency", "MODEL", "MODEL"),
    "quick": ("bench", "MODEL", "--quick"),
    "peers": ("bench", "MODEL", "--peers"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of questions, and of a model with a matrix of integers: the first token ends the process."""
    folder = tmp_path_factory.mktemp("untrusted")
    write_gguf(folder / "MODEL", {}, {"blk.0.attn_q.weight": np.ones((64, 64), np.int8)})
    (folder / "QUESTIONS").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    return folder


@pytest.fixture(scope="module", autouse=True)
def trials(folder):
    """Trials as users have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THIRTEEN_CACHE", str(folder / "cache"))
        patch.delenv("THIRTEEN_UNTRUSTED")
        yield


@pytest.mark.parametrize("name", COMMANDS)
def test_a_model_that_ends_the_process_is_one_line(name, thirteen, folder, tmp_path):
    paths = {"MODEL": folder / "MODEL", "QUESTIONS": folder / "QUESTIONS", "OUT": tmp_path / "out"}
    done = thirteen(*(paths.get(word, word) for word in COMMANDS[name]))
    *notice, error = done.stderr.splitlines()
    assert (done.status, error) == (2, f"error: {folder / 'MODEL'}: computing ended with SIGSEGV")
    assert notice in ([], ["trying MODEL once in a separate process …"])  # on a busy machine
    assert not done.stdout and not [path for path in tmp_path.rglob("*") if path.is_file()]
