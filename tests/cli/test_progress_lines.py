"""Progress without a terminal: a line every ten seconds, with the share done and the time left."""

import pytest
from thirteen.cli import console


@pytest.mark.parametrize(
    ("steps", "printed"),
    [
        (
            [(2, 2), (12, 5), (16, 8), (23, 10)],
            ["importance: 5 of 40, 12 %, 0:01:57 left", "importance: 10 of 40, 25 %, 0:01:19 left"],
        ),
        ([(0.1, 20), (10.1, 25)], ["importance: 25 of 40, 62 %, 0:00:30 left"]),  # 20 by an earlier run
        ([(11, 0), (22, 2)], ["importance: 0 of 40, 0 %", "importance: 2 of 40, 5 %"]),  # a model was loaded
    ],
)
def test_a_line_has_the_share_done_and_the_time_left(steps, printed, monkeypatch, capsys):
    now_s = 1000.0
    monkeypatch.setattr(console.err, "get_time", lambda: now_s)
    with console.progress_bar("importance") as progress:
        for after_s, done in steps:
            now_s = 1000 + after_s
            progress(done, 40)
    assert capsys.readouterr().err.splitlines() == printed
