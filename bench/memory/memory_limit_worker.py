"""Run an engine under a memory limit, in a process of its own: it answers, refuses, or dies.

`python -m thirteen.bench.memory.memory_limit_worker FILE.gguf` prints the outcome as JSON. The limit is on
address space (RLIMIT_AS). It works everywhere without privileges, it counts every page of the mapped file
whether touched or not, and an allocation beyond it fails at once. Under a control group's limit the kernel
would drop pages of the weights and read them again for each token, so any limit would seem to work.
"""

import argparse
import re
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime.engine.engine import Engine
from ...runtime.engine.memory_estimate import kv_bytes
from ...runtime.engine.prefix_cache import LENGTH_MIN
from ...runtime.request import Request
from ..harness import isolated
from ..harness.iteration import random_prompt

QUESTIONS = (
    "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?",
    "A pen costs $1.20. What do 3 pens cost?",
    "Ann reads 12 pages a day. How many pages does she read in 7 days?",
    "Sara had 20 dollars and spent 6. How much has she left?",
)
_ANSWER = 32  # tokens
_NEAR = 0.97  # of what the prefix cache keeps: saved keys and values have a few bytes more


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What the engine is given.

    Attributes:
        profile: the name of one.
        context: tokens of prompt and answer.
        threads: that compute.
    """

    profile: str = "phone"
    context: int = 2048
    threads: int = 1


@dataclass(frozen=True, slots=True)
class LimitOutcome:
    """What an engine did under a limit.

    Attributes:
        context: tokens that it had room for.
        answers: how many questions it answered.
        filled: whether it also filled its context and its prefix cache.
        peak_rss_bytes: the most that was resident.
        peak_address_bytes: the most address space that it had.
    """

    context: int
    answers: int
    filled: bool
    peak_rss_bytes: int
    peak_address_bytes: int


def _answer(model: Path, trial: LimitSettings, *, fill: bool) -> LimitOutcome:
    with Engine(model, **asdict(trial)) as engine:
        questions = QUESTIONS if fill else QUESTIONS[:1]
        for question in questions:
            engine.answer(question, max_tokens=_ANSWER)
        if fill:
            _fill(engine)
        return LimitOutcome(engine.context, len(questions), fill, _status("VmHWM"), _status("VmPeak"))


def _fill(engine: Engine) -> None:
    """Read a prompt as long as the context, and then as many as the prefix cache keeps, and one more."""
    header, profile = engine.model.header, engine.profile
    of_a_token = kv_bytes(header, profile, engine.context) / profile.slots / engine.context
    kept = int(profile.prefix_bytes / of_a_token * _NEAR)  # tokens
    lengths = [engine.context - 1]
    if kept > LENGTH_MIN:
        length = min(kept, engine.context - 1)
        lengths += [length] * (kept // length + 1)
    for number, length in enumerate(lengths):
        prompt = random_prompt(engine.model, number, length)
        engine.submit(Request(prompt, 1), wait=True).answer()


def _status(name: str) -> int:
    """A figure of this process, as Linux has it."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def main() -> int:
    """Answer under the limit that the command line names; an error is JSON as well, with exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE.gguf")
    parser.add_argument("--cap", type=int, default=0, help="bytes; 0 sets no limit")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--profile", default="phone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--fill",
        action="store_true",
        help="ask all questions, and fill the context and the prefix cache",
    )
    given = parser.parse_args()
    if given.cap:
        resource.setrlimit(resource.RLIMIT_AS, (given.cap, given.cap))

    def answered() -> dict[str, Any]:
        trial = LimitSettings(given.profile, given.context, given.threads)
        return asdict(_answer(given.model, trial, fill=given.fill))

    return isolated.print_outcome(answered)


if __name__ == "__main__":
    sys.exit(main())
