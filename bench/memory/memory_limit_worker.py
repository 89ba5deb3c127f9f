"""Worker process that runs an engine under a memory limit.

`python -m thirteen.bench.memory.memory_limit_worker FILE.gguf` prints the outcome as JSON. The limit is on
address space (RLIMIT_AS). It needs no privileges, it counts every page of the mapped file whether touched or
not, and an allocation beyond it fails at once. Under a cgroup limit the kernel would drop pages of the
weights and read them again for each token, so any limit would seem to work.
"""

import argparse
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ...runtime.engine.engine import Engine
from ...runtime.engine.prefix_cache import PREFIX_TOKENS_MIN
from ...runtime.llama.memory_estimate import kv_bytes
from ...runtime.request import Request
from ..harness.isolated import print_outcome
from ..harness.iteration import random_prompt
from ..harness.peak_memory import status_bytes

QUESTIONS = (
    "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?",
    "A pen costs $1.20. What do 3 pens cost?",
    "Ann reads 12 pages a day. How many pages does she read in 7 days?",
    "Sara had 20 dollars and spent 6. How much has she left?",
)
_ANSWER_TOKENS = 32
_PREFIX_FRACTION = 0.97  # of the prefix cache's capacity: a saved KV cache has a few extra bytes


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Settings of the engine.

    Attributes:
        profile: name of a profile.
        context: tokens of prompt and answer.
        threads: compute threads.
    """

    profile: str = "phone"
    context: int = 2048
    threads: int = 1


@dataclass(frozen=True, slots=True)
class LimitOutcome:
    """Outcome of an engine under a limit.

    Attributes:
        context: context length of the engine, in tokens.
        answers: number of answered questions.
        filled: whether it also filled its context and its prefix cache.
        peak_rss_bytes: peak resident set size.
        peak_address_bytes: peak address space.
    """

    context: int
    answers: int
    filled: bool
    peak_rss_bytes: int
    peak_address_bytes: int


def _run(model: Path, settings: LimitSettings, *, limit: int, fill: bool) -> LimitOutcome:
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Engine(model, **asdict(settings)) as engine:
        questions = QUESTIONS if fill else QUESTIONS[:1]
        for question in questions:
            engine.answer(question, max_tokens=_ANSWER_TOKENS)
        if fill:
            _fill(engine)
        peak_rss, peak_address = (status_bytes(name) or 0 for name in ("VmHWM", "VmPeak"))
        return LimitOutcome(engine.context, len(questions), fill, peak_rss, peak_address)


def _fill(engine: Engine) -> None:
    """Fill the context with one prompt, then overfill the prefix cache by one prompt."""
    profile = engine.profile
    bytes_per_token = kv_bytes(engine.model.header, profile, engine.context) / profile.slots / engine.context
    capacity = int(profile.prefix_bytes / bytes_per_token * _PREFIX_FRACTION)  # tokens
    lengths = [engine.context - 1]
    if capacity > PREFIX_TOKENS_MIN:
        length = min(capacity, engine.context - 1)
        lengths += [length] * (capacity // length + 1)
    for number, length in enumerate(lengths):
        prompt = random_prompt(engine.model, number, length)
        engine.submit(Request(prompt, 1), wait=True).answer()


def main() -> int:
    """Run the engine under the limit given on the command line; errors are JSON too, with exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, metavar="FILE.gguf")
    parser.add_argument("--cap", type=int, default=0, help="limit in bytes; 0 sets none")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--profile", default="phone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--fill", action="store_true", help="ask all questions and fill the context and the prefix cache"
    )
    options = parser.parse_args()
    settings = LimitSettings(options.profile, options.context, options.threads)
    return print_outcome(lambda: asdict(_run(options.model, settings, limit=options.cap, fill=options.fill)))


if __name__ == "__main__":
    sys.exit(main())
