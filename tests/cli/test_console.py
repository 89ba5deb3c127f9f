"""Console output: a model's text arrives as it is, and closed standard streams do no harm."""

import subprocess
import sys
from pathlib import Path

import pytest
from thirteen.cli import console
from thirteen.cli.answer_text import checks_text
from thirteen.cli.console import note, show, show_text
from thirteen.runtime.answer import SequenceEnd, StopReason, Timings, Usage, grade
from thirteen.runtime.options import Request


def test_a_models_text_is_not_changed(capsys):
    """By rich, lines of more than 200 columns would be wrapped, and :100: would become an emoji."""
    text = f"3:100:7 [bold]{'x' * 300}[/bold]"
    show_text(f"{text}\x1b[2J")
    note(text)
    shown = capsys.readouterr()
    assert shown.out == f"{text}[2J\n" and shown.err == f"{text}\n"


def test_numbers_that_json_lacks_are_null(capsys):
    show(True, {"ratio": float("nan"), "speeds": (1.5, float("inf")), "file": Path("a.gguf")})
    assert capsys.readouterr().out == '{"ratio": null, "speeds": [1.5, null], "file": "a.gguf"}\n'


@pytest.mark.parametrize(
    "line", ["ask - <&-", *(pytest.param(f"models {n}>&-", marks=pytest.mark.exhaustive) for n in "12")]
)
def test_a_closed_stream_is_an_empty_one(line):
    command = f"{sys.executable} -m thirteen {line}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (2 if "ask" in line else 0) and "Traceback" not in done.stderr, done


def test_what_was_checked_is_not_said_to_be_right():
    for text, question, shown in (
        ("300 / 10 = 30 grams. 2 * 3 = 6", "300 g, 10 and 2, 3", "2 sums checked; the reasoning was not"),
        ("3 * 4 = 12", "", "1 sum checked, some numbers are not in the question; the reasoning was not"),
        ("I pay $80 - 25 = $65", "", "1 sum checked, 1 wrong: $80 - 25 is 55; the reasoning was not"),
        ("3 * 4 = 12. 2x = 24", "", "1 sum checked; 1 equation and the reasoning were not"),
        ("2 dozen + 3 dozen = 5", "", "1 equation not checked"),
        ("It is 12", "", ""),
    ):
        end = SequenceEnd(StopReason.END, Usage(1, 1), Timings(0, 0, 0))
        assert checks_text(grade(Request((1,), question=question), None, text, end)) == shown


def test_a_line_has_the_share_done_and_the_time_left(monkeypatch, capsys):
    now_s = 1000.0
    monkeypatch.setattr(console.err, "get_time", lambda: now_s)
    for steps, printed in (
        (
            [(2, 2), (12, 5), (16, 8), (23, 10)],
            ["importance: 5 of 40, 12 %, 0:01:57 left", "importance: 10 of 40, 25 %, 0:01:19 left"],
        ),
        ([(0.1, 20), (10.1, 25)], ["importance: 25 of 40, 62 %, 0:00:30 left"]),  # 20 by an earlier run
        ([(11, 0), (22, 2)], ["importance: 0 of 40, 0 %", "importance: 2 of 40, 5 %"]),  # a model was loaded
    ):
        now_s = 1000.0
        with console.progress_bar("importance") as progress:
            for after_s, done in steps:
                now_s = 1000 + after_s
                progress(done, 40)
        assert capsys.readouterr().err.splitlines() == printed
