"""The proof of another library: what differs, aborts or takes too long is found once for a file."""

from pathlib import Path

import pytest
from thirteen.errors import FileError
from thirteen.runtime.llama import library_proof
from thirteen.runtime.llama.library_proof import prove_library, require_proof
from thirteen.runtime.native.ik_llama_library import installed

from ..gguf_adapters import write_lora

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")]

WORKER = "from thirteen.runtime.llama import library_proof_worker as worker; "
# Programs that stand in for the comparison's own, or change it.
PROBLEMS = {
    "import os, signal; os.kill(os.getpid(), signal.SIGABRT)": "ended with SIGABRT",
    "import sys; sys.exit(7)": "failed with exit status 7",
    "import time; time.sleep(60)": "takes more than 2 seconds",
    f"{WORKER}worker.KL_MAX = 1e-9; worker.main()": r"a KL divergence of 0\.\d+ nats from",
    f"{WORKER}worker.SAME_MAX = -1.0; worker.main()": "a copy of a sequence predicts something else",
    f"{WORKER}worker.EFFECT_MAX = -1.0; worker.main()": r"lora\.gguf moves its predictions by [\d.]+ nats",
}


# Struct fields of ik_llama.cpp with which an adapter is left out, or kept for the next sequence.
TRAPS = {"fused_up_gate": "by|divergence", "graph_reuse": "a change of the adapter: a KL divergence"}
SET_TRAP = (
    "from thirteen.runtime.native import ik_llama_library as ik; import ik_llama_cpp._ctypes_api as api; "
    "made = api.llama_init_from_model\n"
    "def make(model, native):\n"
    "    native.{} = True\n"
    "    return made(model, native)\n"
    "api.llama_init_from_model = make\n" + WORKER + "worker.main()"
)
HOLES_STAY = (
    "from thirteen.runtime.native import ik_llama_library as ik\n"
    "remove = lambda self, context, *at: self._call['llama_kv_cache_seq_rm'](context, *at, -1)\n"
    "ik.IkLlamaLibrary.clear = remove\n" + WORKER + "worker.main()"
)
PROBLEMS[HOLES_STAY] = "behind a sequence that has ended: a KL divergence"
PROBLEMS |= {SET_TRAP.format(field): message for field, message in TRAPS.items()}


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "lora.gguf", seed=1)


def test_a_file_and_its_adapter_are_compared_once(
    tiny: Path, lora: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prove_library("ik", tiny, [lora], threads=1) == ""
    monkeypatch.setattr(library_proof.subprocess, "run", pytest.fail)
    assert prove_library("ik", tiny, [lora], threads=1) == ""


@pytest.mark.parametrize("program", PROBLEMS)
def test_what_is_wrong_is_said_and_not_tried_again(
    program: str, tiny: Path, lora: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_proof, "_PROGRAM", program)
    monkeypatch.setattr(library_proof, "_WALL_S", 2 if "sleep" in program else 120)
    for _ in range(2):
        with pytest.raises(FileError, match=f"ik cannot be used: .*{PROBLEMS[program]}.*; use") as error:
            require_proof("ik", tiny, [lora], threads=1)
        assert "\n" not in str(error.value)
        monkeypatch.setattr(library_proof.subprocess, "run", pytest.fail)


def test_a_comparison_that_is_told_to_end_proves_nothing(
    tiny: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that was stopped meanwhile never used the library for the file again."""
    monkeypatch.setattr(library_proof, "_PROGRAM", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(FileError, match="was ended by SIGTERM"):
        prove_library("ik", tiny, [], threads=1)
    monkeypatch.setattr(library_proof, "_PROGRAM", 'print(\'{"problem": "", "kl": 0.0}\')')
    assert prove_library("ik", tiny, [], threads=1) == ""
