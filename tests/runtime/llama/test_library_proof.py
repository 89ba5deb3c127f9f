"""The proof of another library: what differs or aborts is found once for a file."""

import os
import re
import sys
from pathlib import Path
from time import time

import pytest
from thirteen.errors import FileError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import library_proof
from thirteen.runtime.llama.library_proof import failed_proofs, prove_library, require_proof
from thirteen.runtime.native.ik_llama_library import installed
from thirteen.runtime.native.settings import Settings
from thirteen.runtime.plan.plan import EnginePlan

from ..gguf_adapters import write_lora

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")]

IK = Settings(8, 1, 8, threads=1, library="ik", flash_attention=False)
EQUAL = 'print(\'{"problem": "", "again": false}\')'
WORKER = "from thirteen.runtime.llama import library_proof_worker as worker; "
# Programs that stand in for the comparison's own, or change it.
PROBLEMS = {
    "import os, signal; os.kill(os.getpid(), signal.SIGABRT)": "ended with SIGABRT",
    f"{WORKER}worker.KL_MAX = 1e-9; worker.main()": r"a KL divergence of 0\.\d+ nats from",
    f"{WORKER}worker.SAME_MAX = -1.0; worker.main()": "a copy of a sequence predicts something else",
    f"{WORKER}worker.EFFECT_MAX = -1.0; worker.main()": r"lora\.gguf moves its predictions by [\d.]+ nats",
}
# Problems that another time may not have.
PASSING = {
    "import sys; sys.exit(7)": "failed with exit status 7",
    "import time; time.sleep(60)": "takes more than 2 seconds",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "ended with SIGKILL",
    f"{WORKER}worker._observe = lambda *_: bytearray(1 << 60); worker.main()": "out of memory",
    "": "cannot be started: .*No such file",
}
ONE_AT_A_TIME = f"""{WORKER}
loaded = []
class Model(worker.Model):
    def __init__(self, *source, **options):
        assert not loaded, "two copies of the weights"
        loaded.append(self)
        super().__init__(*source, **options)
    def close(self):
        loaded.clear()
        super().close()
worker.Model = Model
worker.main()
"""
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
    assert prove_library(IK, tiny, [lora]) == ""
    with monkeypatch.context() as patch:
        patch.setattr(library_proof.subprocess, "run", pytest.fail)
        assert prove_library(IK, tiny, [lora]) == ""
    for record in records.parent.glob("proof-*.json"):
        record.write_text("[]")  # damaged: it is compared again
    assert prove_library(IK, tiny, [lora]) == ""


@pytest.mark.parametrize("program", PROBLEMS)
def test_what_is_wrong_is_said_and_not_tried_again(
    program: str, tiny: Path, lora: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_proof, "_PROGRAM", program)
    for _ in range(2):
        with pytest.raises(FileError, match=f"ik cannot be used: .*{PROBLEMS[program]}.*; use") as error:
            require_proof(IK, tiny, [lora])
        assert "\n" not in str(error.value)
        monkeypatch.setattr(library_proof.subprocess, "run", pytest.fail)


def test_a_comparison_that_is_told_to_end_proves_nothing(
    tiny: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that was stopped meanwhile never used the library for the file again."""
    monkeypatch.setattr(library_proof, "_PROGRAM", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(FileError, match="was ended by SIGTERM"):
        prove_library(IK, tiny, [])
    monkeypatch.setattr(library_proof, "_PROGRAM", EQUAL)
    assert prove_library(IK, tiny, []) == ""


@pytest.mark.parametrize("program", PASSING)
def test_what_may_pass_is_tried_again_after_an_hour(
    program: str, tiny: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout kept the library from the file for ever, and where no process started, no engine did."""
    monkeypatch.setattr(library_proof, "_PROGRAM", program)
    monkeypatch.setattr(library_proof, "_WALL_S", 2 if "sleep" in program else 120)
    with monkeypatch.context() as patch:
        if not program:
            patch.setattr(sys, "executable", "/none")
        problem = prove_library(IK, tiny, [])
    assert re.search(f"{PASSING[program]}.*; it is tried again after an hour$", problem)
    assert any(problem in line for line in failed_proofs())
    monkeypatch.setattr(library_proof, "_PROGRAM", EQUAL)
    assert prove_library(IK, tiny, []) == problem
    for record in records.parent.glob("proof-*.json"):
        os.utime(record, (time() - 3601,) * 2)
    assert prove_library(IK, tiny, []) == "" and not [*failed_proofs()]


def test_only_one_copy_of_the_weights_is_in_memory(
    tiny: Path, lora: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_proof, "_PROGRAM", ONE_AT_A_TIME)
    assert prove_library(IK, tiny, [lora]) == ""


def test_the_profile_of_little_memory_keeps_the_file_mapped(
    tiny: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its KV cache in q8_0 was an error that named options nobody had given."""
    plan = EnginePlan.make(tiny, profile="phone", library="ik", threads=1)
    assert (plan.settings.library, plan.settings.kv, plan.settings.repack) == ("ik", "f16", False)
    monkeypatch.setattr(library_proof.subprocess, "run", pytest.fail)
    require_proof(plan.settings, tiny, [])
    with Engine(plan) as engine:
        assert engine.logits((1, 2, 3)).any()
        assert any(str(tiny) in line for line in Path("/proc/self/maps").read_text().splitlines())
