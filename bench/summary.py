"""Findings of a benchmark in plain sentences: speed, size and right answers."""

from ..stats.paired_ratio import NOISE_MAX, ROUNDS_MIN, ratio_level, too_noisy
from .accuracy.accuracy import AccuracyReport
from .speed.latency import more_rounds
from .speed.questions import QuestionSpeeds


def speed_sentence(speeds: QuestionSpeeds, rounds: int) -> str:
    """Compare the tokens per second of two models after so many rounds."""
    base, adapted = speeds.decode.base_median, speeds.decode.adapted_median
    ratio = speeds.decode.ratio
    few = f" ({rounds} rounds, {ratio_level(rounds)} sure)" if rounds < ROUNDS_MIN else ""
    open_ = few + _open(more_rounds(ratio.half_width, rounds) if too_noisy(ratio) else 0, "rounds")
    if not ratio.excludes_one:
        most = 100 * max(1 - ratio.low, ratio.high - 1)
        within = f"{most:.0f}" if most >= 1 else f"{most:.1f}"
        return f"Speed: no difference within {within} %: both write about {base:.0f} tokens/s{open_}."
    word = "slower" if ratio.estimate < 1 else "faster"
    low, percent, high = sorted(100 * abs(one - 1) for one in (ratio.low, ratio.estimate, ratio.high))
    text = f"Speed: the adapted model writes {adapted:.0f} tokens/s, its base {base:.0f}"
    return f"{text}: {percent:.0f} % {word} ({low:.0f} to {high:.0f} %){open_}."


def size_sentence(base_bytes: int, adapted_bytes: int) -> str:
    """Compare the sizes of two models, each with its run-time adapter."""
    base, adapted = (f"{size / 1e6:,.1f}" for size in (base_bytes, adapted_bytes))
    return f"Size: the adapted model has {adapted} MB, its base {base} MB."


def accuracy_sentence(report: AccuracyReport, available: int = 0) -> str:
    """Compare the right answers of two models, or count those of one, of so many available questions."""
    scores, paired = report.adapted.scores, report.paired
    asked = paired.questions if report.base and paired else scores.questions
    of_all = f" (no time for all {available})" if asked < available else ""
    if report.base is None or paired is None:
        text = f"Right answers: {scores.correct} of {asked} questions of {report.data}{of_all}"
        return f"{text}: {scores.accuracy.text(0, 100)} %."
    text = (
        f"Right answers: {paired.both + paired.gained} of {asked} questions of {report.data}{of_all}, the "
        f"base {paired.both + paired.lost}: "
    )
    points = paired.difference
    if not paired.differs:
        within = f"no difference within {max(-points.low, points.high) * 100:.0f} points"
        return f"{text}{within}{_open(paired.more_questions(NOISE_MAX), 'questions')}."
    word = "more" if points.estimate > 0 else "fewer"
    low, high = sorted(100 * abs(one) for one in (points.low, points.high))
    return f"{text}{100 * abs(points.estimate):.0f} points {word} ({low:.0f} to {high:.0f})."


def _open(number: int, what: str) -> str:
    return f"; about {number} more {what} would settle it" if number else ""
