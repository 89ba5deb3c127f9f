"""Progress without a terminal: a line every ten seconds, with the share done and the time left."""

import pytest
from thirteen.cli import console


class Clock:
    """Seconds that pass only when a test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(console.err, "get_time", clock)
    yield clock


def lines(
    clock: Clock, capsys: pytest.CaptureFixture[str], *steps: tuple[float, int], total: int = 40
) -> str:
    """What is printed for steps that end after so many seconds."""
    with console.run_bars() as run:
        progress = run.stage("importance")
        start_s = clock.now_s
        for after_s, done in steps:
            clock.now_s = start_s + after_s
            progress(done, total)
    return capsys.readouterr().err


def test_a_line_has_the_share_done_and_the_time_left(clock, capsys):
    printed = lines(clock, capsys, (2, 2), (12, 5), (16, 8), (23, 10))
    assert printed == (
        "importance: 5 of 40, 12 %, 1 min 57 s left\nimportance: 10 of 40, 25 %, 1 min 19 s left\n"
    )


def test_steps_of_an_earlier_run_do_not_count_as_fast_ones(clock, capsys):
    assert lines(clock, capsys, (0.1, 20), (10.1, 25)) == "importance: 25 of 40, 62 %, 30 s left\n"


def test_the_first_step_has_no_time_left(clock, capsys):
    """It also loads a model: the demo announced 24 minutes, and took two."""
    assert lines(clock, capsys, (11, 0), (22, 2)) == "importance: 0 of 40, 0 %\nimportance: 2 of 40, 5 %\n"


def test_of_steps_that_run_together_the_first_tell_no_speed(clock, capsys):
    """Sixteen questions end within a second, after ten: the time left was a tenth of what it became."""
    with console.progress_bar("batch", 16) as progress:
        progress(0, 160)
        for row in range(1, 17):
            clock.now_s += 11 if row == 1 else 1 / 15
            progress(row, 160)
        clock.now_s += 12
        progress(32, 160)
    assert capsys.readouterr().err.splitlines() == [
        "batch: 1 of 160, 1 %",
        "batch: 32 of 160, 20 %, 1 min 37 s left",
    ]


def test_a_new_label_starts_a_new_estimate(clock, capsys):
    with console.labelled_progress_bar() as show:
        for label, done in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
            clock.now_s += 20
            show(label, done, 4)
    printed = capsys.readouterr().err.splitlines()
    assert printed[1] == "a: 2 of 4, 50 %, 40 s left" and printed[-1] == "b: 2 of 4, 50 %, 40 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert console.duration_text(seconds) == text
