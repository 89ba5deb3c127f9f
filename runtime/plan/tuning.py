"""What was measured with some settings, and the fastest; saved in the cache folder for the next engine."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from functools import reduce
from importlib.metadata import version
from math import sqrt
from time import time
from typing import Any

from ...errors import ThirteenError
from ...files.cache_folder import record_file
from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import Header
from ...files.processors import processor_name
from ..llama.gguf_checks import ARCHITECTURES
from ..machine.threads import default_threads
from ..native.bindings import llama_cpp
from ..native.settings import Settings, library_version
from .candidates import Candidates

# An ordinary question: the tokens of its prompt, and those of its answer.
PROMPT_TOKENS, ANSWER_TOKENS = 200, 96
_GAIN_MIN = 0.05  # of another setting than the usual one, which takes less memory, or fewer surprises
_DISTURBED_S = 600  # how long a disturbed choice holds
_RECORD = "compute"  # kind of the saved files
_MEASURED = ("threads", "prefill_threads", "flash_attention", "kv", "library")  # fields of Settings


@dataclass(frozen=True, slots=True)
class Trial:
    """Measured times with some settings.

    Attributes:
        settings: how it was computed.
        prefill_s: seconds for a prompt token.
        decode_s: seconds for a token of one sequence, in an ordinary question.
        together_s: seconds for a token of every slot.
    """

    settings: Settings
    prefill_s: float
    decode_s: float
    together_s: float

    @property
    def question_s(self) -> float:
        """Geometric mean of the seconds of one ordinary question, and of one in every slot."""
        prompt_s = PROMPT_TOKENS * self.prefill_s
        one_s, all_s = prompt_s + ANSWER_TOKENS * self.decode_s, self.settings.slots * prompt_s
        return float(sqrt(one_s * (all_s + ANSWER_TOKENS * self.together_s)))

    def cost(self, usual: Settings) -> float:
        """Seconds of ordinary questions, with a handicap for each setting that is not the usual one."""
        one = self.settings
        others: int = sum(a != b for a, b in zip(astuple(one), astuple(usual), strict=True))
        handicap = _GAIN_MIN * others + (_GAIN_MIN if one.kv != usual.kv else 0)  # bf16 keeps fewer digits
        return self.question_s * (1 + handicap)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Result of a measurement.

    Attributes:
        settings: the best ones; the defaults if other programs have disturbed the measurement.
        trials: all that were measured.
        quiet: whether no other program has disturbed the measurement.
    """

    settings: Settings
    trials: tuple[Trial, ...]
    quiet: bool

    @property
    def parallel_cost(self) -> float | None:
        """Seconds of a token that all slots decode at once / of one alone; None if they were not measured."""
        for trial in self.trials:
            if trial.settings == self.settings and trial.decode_s > 0 and self.quiet:
                return trial.together_s / self.settings.slots / trial.decode_s
        return None


def join_tunings(tunings: Iterable[Tuning], usual: Settings) -> Tuning:
    """The best of all measurements, with their trials.

    If other programs disturbed one, or it was given up, the best are the usual settings.
    """

    def better(one: Tuning, other: Tuning) -> Tuning:
        quiet, trials = one.quiet and other.quiet, (*one.trials, *other.trials)
        compared = quiet and one.trials and other.trials
        best = min(trials, key=lambda trial: trial.cost(usual)).settings if compared else usual
        return Tuning(best, trials, quiet)

    return reduce(better, tunings)


def find_tuning(candidates: Candidates, header: Header) -> Tuning | None:
    """The saved measurement of these candidates.

    One that other programs have disturbed holds for ten minutes, so that not every start on a busy machine
    measures.
    """
    with suppress(OSError, ThirteenError, ValueError, KeyError, TypeError):
        path = record_file(_RECORD, _key(candidates, header))
        found = json.loads(path.read_bytes())
        if found["quiet"] or abs(time() - path.stat().st_mtime) < _DISTURBED_S:
            return _parse(found, candidates.ways[0])
    return None


def save_tuning(tuning: Tuning, candidates: Candidates, header: Header) -> None:
    """Save a measurement for all engines with such candidates and a model of this shape.

    Raises:
        OutputError: it cannot be written.
        FileError: the header has no valid shape.
    """
    from ...files.atomic_write import write_file  # noqa: PLC0415 - once for a processor and a model's shape

    found = asdict(tuning)
    for one in (found, *found["trials"]):
        one["settings"] = {name: one["settings"][name] for name in _MEASURED}
    key = _key(candidates, header)
    write_file(record_file(_RECORD, key), json.dumps(key | found, indent=1).encode() + b"\n")


def _parse(found: dict[str, Any], usual: Settings) -> Tuning:
    def settings(of: dict[str, Any]) -> Settings:
        if set(of["settings"]) != set(_MEASURED) or type(of["settings"]["flash_attention"]) is not bool:
            raise ValueError(of)
        return replace(usual, **of["settings"])

    trials = [
        Trial(settings(one), float(one["prefill_s"]), float(one["decode_s"]), float(one["together_s"]))
        for one in found["trials"]
    ]
    return Tuning(settings(found), tuple(trials), found["quiet"])


def _key(candidates: Candidates, header: Header) -> dict[str, Any]:
    """Everything that the choice depends on."""
    shape, usual = read_decoder_shape(header), candidates.ways[0]
    names = ["layers", "hidden", "heads", "kv_heads", "head_dim"]
    if shape.experts_used or shape.architecture not in ARCHITECTURES:
        names += ["architecture", "ffn", "experts_used"]
    return {
        **speed_environment(),
        **{name: getattr(shape, name) for name in names},
        **{name: getattr(usual, name) for name in ("slots", "batch", "repack")},
        "ways": [[way.flash_attention, way.kv, library_version(way.library)] for way in candidates.ways],
        "given_threads": candidates.threads,
        "default_threads": default_threads(),
    }


def speed_environment() -> dict[str, str]:
    """Processor and build: what every measured speed depends on."""
    return {
        "processor": processor_name(),
        "llama_cpp_python": version("llama-cpp-python"),
        "features": llama_cpp.llama_print_system_info().decode("utf-8", "replace").strip(" |\n"),
    }
