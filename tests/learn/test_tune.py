"""The search: convergence on a planted optimum, restarts, and resumption from the journal."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from thirteen.errors import OutputError, ThirteenError
from thirteen.learn.cma_search import CheckScore, CmaSearch, SearchSettings
from thirteen.learn.objective import Cost
from thirteen.learn.tune import PairedAccuracy, TuneData, run_search
from thirteen.learn.tuning_journal import FILE, HeldOutCache, TuningJournal
from thirteen.models.rows import TrainingRow

PLANTED = np.random.default_rng(8).normal(0, 0.1, 13)
SETTINGS = SearchSettings(sigma=0.05, generations=80, population=12, patience=4, restarts=1)
ROWS = [TrainingRow(f"question {n}", "", str(n)) for n in range(120)]
DATA = TuneData(ROWS[:80], ROWS[80:100], ROWS[100:], questions=16)


class PlantedObjective:
    """A fake objective: minus the squared distance to the optimum, with noise that depends on the rows."""

    def __init__(self, planted=PLANTED, noise=0.02):
        self.planted, self.noise, self.cost, self.questions = planted, noise, Cost(), []

    def scores(self, candidates, rows):
        self.questions.append([row.question for row in rows])
        bias = np.mean([np.random.default_rng(int(row.answer)).normal(0, 1) for row in rows])
        return [
            -float(np.sum((one - self.planted) ** 2)) + self.noise * bias * (1 + float(np.sum(one)))
            for one in candidates
        ]

    def correct(self, numbers, rows):
        away = float(np.linalg.norm(numbers - self.planted) / np.linalg.norm(self.planted))
        return [np.random.default_rng(int(row.answer)).uniform() > away for row in rows]


def identity(settings=SETTINGS):
    return {"model": "fake", **asdict(settings)}


def run(folder, objective=None, settings=SETTINGS, on_progress=lambda progress: None):
    with TuningJournal(folder, identity(settings)) as journal:
        return run_search(objective or PlantedObjective(), DATA, settings, journal, on_progress=on_progress)


def test_it_finds_the_planted_optimum(tmp_path):
    search = run(tmp_path)
    assert np.linalg.norm(search.best.numbers - PLANTED) < 0.25 * np.linalg.norm(PLANTED)
    assert search.best.check.right > 14 and search.best.generation > 0


def test_each_generation_draws_its_own_questions(tmp_path):
    objective = PlantedObjective()
    run(tmp_path, objective, replace(SETTINGS, generations=6))
    assert len({tuple(questions) for questions in objective.questions}) == len(objective.questions) == 6
    pool = {row.question for row in DATA.pool}
    assert all(set(questions) <= pool for questions in objective.questions)


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 5, 6, 21])
def test_an_interrupted_run_resumes_with_the_same_generation(tmp_path, stop):
    """State outside the journal, such as a random generator's, would change the scores."""
    settings = replace(SETTINGS, generations=25)
    whole = []
    run(tmp_path / "whole", None, settings, lambda progress: whole.append(progress.record.scores))

    def end(progress):
        if progress.search.generation == stop:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "parts", None, settings, end)
    parts = []
    run(tmp_path / "parts", None, settings, lambda progress: parts.append(progress.record.scores))
    assert parts == whole


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path):
    """SIGKILL, twice, with half of the last line on disk."""
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from thirteen.learn.tuning_journal import TuningJournal
        from thirteen.learn.tune import run_search
        from tests_tune import DATA, PlantedObjective, SETTINGS, identity, replace

        class Slow(PlantedObjective):
            def scores(self, candidates, rows):
                time.sleep(0.02)
                return super().scores(candidates, rows)

        settings = replace(SETTINGS, generations=30)
        journal = TuningJournal(Path(sys.argv[1]), identity(settings))
        run_search(Slow(), DATA, settings, journal)
    """)
    (tmp_path / "tests_tune.py").symlink_to(__file__)
    (tmp_path / "run.py").write_text(script)
    journal = tmp_path / "run" / FILE
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "run")]
    for wanted in (3, 9):
        process = subprocess.Popen(command)
        while not journal.exists() or journal.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with journal.open("ab") as file:
            file.write(b'{"scores": [0.1, 0.')
    subprocess.run(command, check=True)
    settings = replace(SETTINGS, generations=30)
    run(tmp_path / "whole", None, settings)
    read = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (journal, tmp_path / "whole" / FILE)
    ]
    assert [(one.get("scores"), one.get("check")) for one in read[0]] == [
        (one.get("scores"), one.get("check")) for one in read[1]
    ]


def test_a_search_from_a_start_returns_it_unless_a_check_is_better(tmp_path):
    seen, close = [], PLANTED * 0.98

    class Watched(PlantedObjective):
        def correct(self, numbers, rows):
            seen.append(numbers)
            return super().correct(numbers, rows)

    short = replace(SETTINGS, generations=1, check_every=1, sigma=0.2)
    with TuningJournal(tmp_path, identity(short)) as journal:
        search = run_search(Watched(), DATA, short, journal, start=close)
    assert seen[0] is close and seen[1] is not close
    assert np.array_equal(search.best.numbers, close) and search.best.generation == 0
    assert search.best.check == journal.generations[0].check


def test_a_run_resumes_with_more_generations(tmp_path):
    short, long = replace(SETTINGS, generations=10), replace(SETTINGS, generations=20)
    resumed = []
    for settings in (short, long):
        with TuningJournal(tmp_path, {}) as journal:
            resumed.clear()
            run_search(
                PlantedObjective(),
                DATA,
                settings,
                journal,
                on_progress=lambda event: resumed.append(event.resumed),
            )
    assert resumed == [True] * 10 + [False] * 10


def test_an_extended_run_is_the_run_that_was_longer_from_the_start(tmp_path):
    """The check after its old last generation, which the longer run lacks, counted as one more."""

    class Hopeless(PlantedObjective):
        def correct(self, numbers, rows):
            return [not numbers.any()] * len(rows)

    settings = replace(SETTINGS, generations=30, check_every=4, patience=2)
    ends = []
    for name, lengths in (("whole", [30]), ("extended", [6, 30])):
        for generations in lengths:
            with TuningJournal(tmp_path / name, {}) as journal:
                part = replace(settings, generations=generations)
                search = run_search(Hopeless(), DATA, part, journal)
        scores = [record.scores for record in journal.generations]
        ends.append((scores, search.generation, search.restarts, search.stopped))
    assert ends[0] == ends[1]


def test_fewer_generations_than_are_done_are_refused(tmp_path):
    for generations in (3, 2):
        with TuningJournal(tmp_path, {}) as journal:
            if generations == 3:
                run_search(PlantedObjective(), DATA, replace(SETTINGS, generations=3), journal)
                continue
            with pytest.raises(ThirteenError, match=r"--generations 2: 3 are done"):
                run_search(PlantedObjective(), DATA, replace(SETTINGS, generations=2), journal)


def test_a_score_that_is_not_finite_counts_as_the_worst():
    searches = [CmaSearch(SETTINGS, np.zeros(13), CheckScore(0.5, 1, 2)) for _ in range(2)]
    scores = [float(np.sum(one)) for one in searches[0].candidates]
    worst = int(np.argmin(scores))
    searches[0].tell(scores)
    assert len(searches[1].candidates) == len(scores)
    searches[1].tell([float("nan") if n == worst else score for n, score in enumerate(scores)])
    assert searches[0].mean == pytest.approx(searches[1].mean)
    searches[1].candidates  # noqa: B018 - asks for the next generation
    with pytest.raises(ThirteenError, match="generation 2: every score is NaN or infinite"):
        searches[1].tell([float("nan"), float("-inf")] * 6)


def test_a_search_without_progress_restarts_and_then_stops(tmp_path):
    class Hopeless(PlantedObjective):
        def correct(self, numbers, rows):
            return [not numbers.any()] * len(rows)

    restarts = []
    search = run(tmp_path, Hopeless(), on_progress=lambda progress: restarts.append(progress.search.restarts))
    assert search.stopped and search.restarts == 1 and search.generation == 40
    assert search.best.generation == 0 and not search.best.numbers.any()
    assert restarts == [0] * 19 + [1] * 21


def test_a_restart_draws_other_candidates_around_the_best():
    search = CmaSearch(replace(SETTINGS, patience=1), np.zeros(13), CheckScore(0.5, 1, 2))
    first = np.array(search.candidates)
    search.tell([0.0] * 12)
    search.record_check(CheckScore(0.1, 0, 2))
    assert search.restarts == 1 and search.sigma == pytest.approx(SETTINGS.sigma)
    assert not np.allclose(first, search.candidates)
    assert np.allclose(search.mean, 0)


def test_the_journal_of_another_run_is_refused(tmp_path):
    run(tmp_path, None, replace(SETTINGS, generations=2))
    with pytest.raises(ThirteenError, match=r"another run: seed is 13 in the file, 14 now"):
        run(tmp_path, None, replace(SETTINGS, seed=14, generations=2))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 3: not a record"),
        ("{", "line 3: not a record"),
        ('{"scores": 1}', "line 3: not the record of a generation"),
        (
            '{"scores": ["a"], "check": null, "seconds": 0, "tokens_s": 0}',
            "line 3: not the record of a generation",
        ),
        ('{"scores": [1.0], "check": null, "seconds": 0, "tokens_s": 0}', "do not match this search"),
        *(
            (
                f'{{"scores": [], "check": {{"score": 1, "right": {right}, "rows": {rows}}}, "seconds": 0, '
                '"tokens_s": 0}',
                "line 3: not the record of a generation",
            )
            for right, rows in (("Infinity", 4), (5, 4), (-1, 4), (0, 0))
        ),
    ],
)
def test_a_damaged_journal_is_refused(tmp_path, line, message):
    run(tmp_path, None, replace(SETTINGS, generations=2))
    lines = (tmp_path / FILE).read_text().splitlines()
    lines[2] = line
    (tmp_path / FILE).write_text("\n".join(lines) + "\n")
    with pytest.raises(ThirteenError, match=message):
        run(tmp_path, None, replace(SETTINGS, generations=2))


def test_a_journal_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ThirteenError, match=r"file/run/generations\.jsonl: Not a directory"):
        TuningJournal(tmp_path / "file" / "run", {})


def test_a_journal_in_use_cannot_be_written(tmp_path):
    """Two searches that write the same journal would corrupt it."""
    settings = replace(SETTINGS, generations=2)
    with TuningJournal(tmp_path, identity(settings)) as journal:
        run_search(PlantedObjective(), DATA, settings, journal)
        with pytest.raises(OutputError, match="another process is writing"):
            TuningJournal(tmp_path, identity(settings)).add(journal.generations[0])
        with pytest.raises(OutputError, match="another process is writing"):
            TuningJournal(tmp_path, identity(settings)).claim()  # before anything is computed


@pytest.mark.parametrize(
    "change",
    [
        {"population": 3},
        {"generations": 0},
        {"sigma": 0.0},
        {"sigma": float("nan")},
        {"seed": -1},
        {"patience": 0},
    ],
)
def test_invalid_settings_are_refused(change):
    with pytest.raises(ThirteenError, match=next(iter(change))):
        replace(SETTINGS, **change)


def test_too_few_rows_are_refused():
    with pytest.raises(ThirteenError, match="3 rows are left"):
        TuneData(ROWS[:3], ROWS[3:6], ROWS[6:9], questions=4)


def test_paired_accuracy_counts_gains_and_losses():
    pair = PairedAccuracy((True, True, False, False) * 25, (True, False, True, True) * 25)
    assert (pair.accuracy, pair.gained, pair.lost) == ((0.5, 0.75), 50, 25)
    assert 0.05 < pair.difference.low < pair.difference.estimate == 0.25 < pair.difference.high < 0.45


def test_a_check_has_a_wilson_interval():
    share = CheckScore(0.2, 20, 100).accuracy
    assert (share.low, share.high) == (pytest.approx(0.1334, abs=1e-3), pytest.approx(0.2888, abs=1e-3))
    assert CheckScore(0.0, 0, 10).accuracy.low == pytest.approx(0.0)


def test_cached_held_out_rows_are_not_graded_again(tmp_path):
    graded = []

    def grade(numbers, rows):
        graded.append(len(rows))
        if len(graded) == 2:
            raise Killed
        return [int(row.answer) % 2 == 0 for row in rows]

    with pytest.raises(Killed):
        HeldOutCache(tmp_path, identity()).correct(grade, PLANTED, ROWS)
    with (tmp_path / "held-out.jsonl").open("a") as file:
        file.write('{"of": "what a killed')
    right = HeldOutCache(tmp_path, identity()).correct(grade, PLANTED, ROWS)
    assert right == [n % 2 == 0 for n in range(120)] and graded == [64, 56, 56]
    assert HeldOutCache(tmp_path, identity()).correct(grade, PLANTED, ROWS) == right and len(graded) == 3
    HeldOutCache(tmp_path, identity()).correct(grade, 2 * PLANTED, ROWS)
    assert len(graded) == 5  # other numbers are graded separately
    HeldOutCache(tmp_path, {"model": "another"}).correct(grade, PLANTED, ROWS)
    assert len(graded) == 7  # and so are those of another model
