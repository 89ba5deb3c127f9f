"""The check of the engine's speed: what is compared, over reports of `bench peers`."""

from pathlib import Path
from typing import Any

import pytest
from thirteen.bench.peers import speed_check
from thirteen.bench.peers.peer import PeerWorkload
from thirteen.bench.peers.peers import PeerRow, PeersReport, PeersRequest
from thirteen.bench.peers.speed_check import check_speed
from thirteen.errors import FileError, RequestError
from thirteen.quality.environment import report_head

WORK = PeerWorkload(threads=1, prompt_tokens=200, decode_tokens=96)
MODEL = Path("m.gguf")


def report(speeds: dict[str, tuple[float, float]], absent: tuple[str, ...] = ()) -> PeersReport:
    """A report with the tokens per second of prefill and decode."""
    rows = []
    for name, (prefill, decode) in speeds.items():
        kinds = {"prefill": prefill, "decode": decode, "together": None, "busy": None}
        rows.append(PeerRow(name, "1", kinds, dict.fromkeys(kinds), None, None))
    return PeersReport(*report_head(), str(MODEL), WORK, 3, tuple(rows), absent)


@pytest.fixture
def measured(monkeypatch):
    """measured(speeds, absent=()): what run_peers returns."""

    def set_measured(*args: Any) -> None:
        monkeypatch.setattr(speed_check, "run_peers", lambda *_, **__: report(*args))

    return set_measured


def test_the_ratio_is_to_the_fastest_setting_of_llama_cpp_python(measured):
    measured(
        {
            "thirteen": (200.0, 48.0),
            "llama-cpp-python": (100.0, 24.0),
            "llama-cpp-python flash_attn=True": (200.0, 96.0),
        }
    )
    check = check_speed(MODEL)
    assert check.seconds == pytest.approx(
        {"thirteen": 3.0, "llama-cpp-python": 6.0, "llama-cpp-python flash_attn=True": 2.0}
    )
    assert check.ratio == pytest.approx(2 / 3) and check.too_slow and check.text.endswith(", slower")


def test_an_equally_fast_engine_is_not_too_slow(measured):
    measured({"thirteen": (200.0, 48.0), "llama-cpp-python": (200.0, 48.0)})
    check = check_speed(MODEL)
    assert check.ratio == 1 and not check.too_slow and check.text.endswith("1.00 of its speed, as fast")


def test_no_other_program_is_asked_for(monkeypatch):
    """A llama-bench that happens to be on PATH does not count."""
    requests = []

    def recorded(request: PeersRequest, _: object) -> PeersReport:
        requests.append(request)
        return report({"thirteen": (200.0, 48.0), "llama-cpp-python": (200.0, 48.0)})

    monkeypatch.setattr(speed_check, "run_peers", recorded)
    check_speed(MODEL)
    ((names, rows),) = ((one.names, one.rows) for one in requests)
    assert names == ("llama-cpp-python",) and all(row.startswith("llama-cpp-python") for row in rows)


def test_without_llama_cpp_python_there_is_nothing_to_compare(measured):
    measured({"thirteen": (200.0, 48.0)}, ("llama-cpp-python: not measured: its process ended",))
    with pytest.raises(RequestError, match=r"llama-cpp-python: .*its process ended"):
        check_speed(MODEL)


def test_a_file_that_is_not_a_model_is_refused(not_a_model):
    with pytest.raises(FileError):
        check_speed(not_a_model)
