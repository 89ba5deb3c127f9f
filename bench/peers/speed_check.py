"""Whether this engine is as fast here as plain llama-cpp-python, on the same file."""

from dataclasses import dataclass
from pathlib import Path

from ...errors import RequestError
from ...files.progress import Progress, no_progress
from .peer import PeerWorkload
from .peers import PeersRequest, question_s, run_peers

# Of the speed of plain llama-cpp-python; with less, something is wrong. Two runs of a program differ by 2 %.
_RATIO_MIN = 0.95
_ROUNDS = 3
_PEERS = ("llama-cpp-python", "llama-cpp-python flash_attn=True")
_WORK = PeerWorkload(
    prompt_tokens=200, decode_tokens=96, sequences=1, short_prompt=8, short_answer=1, busy=False
)


@dataclass(frozen=True, slots=True)
class SpeedCheck:
    """Seconds for an ordinary question: 200 tokens of prompt, 96 of answer.

    Attributes:
        seconds: by program, this engine first.
        ratio: speed of this engine / speed of the fastest other one.
    """

    seconds: dict[str, float]
    ratio: float

    @property
    def too_slow(self) -> bool:
        """Whether something is wrong with this engine here."""
        return self.ratio < _RATIO_MIN

    @property
    def text(self) -> str:
        """The comparison in a line."""
        (_, own_s), *others = self.seconds.items()
        named = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in others)
        verdict = "slower" if self.too_slow else "faster" if self.ratio > 1 / _RATIO_MIN else "as fast"
        return f"an ordinary question takes {own_s:.2f} s, {named}: {self.ratio:.2f} of its speed, {verdict}"


def check_speed(model: Path, *, progress: Progress = no_progress) -> SpeedCheck:
    """Time this engine beside plain llama-cpp-python, each in a process of its own, in about 20 s.

    Args:
        model: a GGUF file.
        progress: called after each program's work.

    Raises:
        FileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a program fails.
    """
    request = PeersRequest(model=model, work=_WORK, rounds=_ROUNDS, names=_PEERS[:1], rows=_PEERS)
    report = run_peers(request, progress)
    seconds = {row.name: question_s(row, report.work) for row in report.rows}
    if len(seconds) == 1:
        raise RequestError(f"llama-cpp-python: {'; '.join(report.absent)}")
    own, *others = seconds.values()
    return SpeedCheck(seconds, min(others) / own)
