"""Questions asked together, in waves whose answers do not depend on what was computed before.

What is computed together shows in the last bits of all of it, and those can decide a token. So questions are
asked in waves of an agreed size, each begun when the last one has ended, with the same in the engine: then a
run that was broken off, or spread over many engines, has the answers of one that was not.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ...errors import ModelFileError, RequestError
from ...files.hashing import file_sha256
from ..answer import Answer
from ..engine.engine import Engine
from ..engine.handle import Handle
from ..engine.majority_vote import check_votes, mean_logprob, winner
from ..engine.prefix_cache import LENGTH_MIN, common_length
from ..profile import PROFILES
from ..request import Request, Sampling, check_integer

PROFILE = "server"
_TOGETHER = 40  # requests of a wave: five times what runs at once, so that few slots are idle at its end
_PROBES = ("1", "A")  # questions that have nothing in common, so that what their prompts share is no question


QuestionBatch = Mapping[int, str]  # questions by their numbers


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How questions are put: what is the same for all of a run.

    Attributes:
        system: what to tell the model beforehand.
        votes: answers to each question; of several, the value that most give is taken.
        sampling: how tokens are chosen; several answers are never greedy, but at a temperature of 0.7.
        calculator: whether sums in answers get their exact results.
        max_tokens: the most tokens of an answer.
    """

    system: str | None = None
    votes: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    calculator: bool = True
    max_tokens: int = 512

    def __post_init__(self) -> None:
        check_integer("max_tokens", self.max_tokens, 1)
        check_votes(self.votes)
        if self.votes > 1:
            object.__setattr__(self, "sampling", self.sampling.varied)

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return ()

    @property
    def wave(self) -> int:
        """How many questions are asked together."""
        return max(_TOGETHER // self.votes, 1)

    def prompt_of(self, engine: Engine, question: str) -> tuple[int, ...]:
        """The tokens that ask a question.

        Raises:
            RequestError: it is empty, or the template does not take it.
        """
        return engine.request(question, system=self.system).tokens


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a question.

    Attributes:
        number: the question's.
        answers: all that were given, in the order of their seeds; none after an error.
        taken: the only one of them, or the one of the value that most give.
        error: what went wrong; None if nothing did.
        failed: whether that was the computation, and not the question.
    """

    number: int
    answers: tuple[Answer, ...] = ()
    taken: Answer | None = None
    error: str | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class BatchJob:
    """Who is asked, and how.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file, applied at run time; None if nothing is.
        terms: how questions are put.
        threads: that compute.
    """

    model: Path
    adapter: Path | None
    terms: GenerationSettings
    threads: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The model, and its adapter if there is one."""
        return (self.model,) if self.adapter is None else (self.model, self.adapter)

    @property
    def identity(self) -> dict[str, Any]:
        """All that the answers depend on, one value of JSON a key: the files are hashed for it."""
        profile = PROFILES[PROFILE]
        return {
            "model_sha256": file_sha256(self.model),
            "adapter_sha256": None if self.adapter is None else file_sha256(self.adapter),
            "votes": self.terms.votes,
            **asdict(self.terms.sampling),
            "calculator": self.terms.calculator,
            "max_tokens": self.terms.max_tokens,
            "threads": self.threads,
            **{
                name: getattr(profile, name)
                for name in ("context", "slots", "batch", "kv", "repack", "lookup")
            },
            "wave": self.terms.wave,
        }

    def ask(self, waves: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        """Ask on this machine.

        Yields:
            What became of each question, as they end.

        Raises:
            ThirteenError: as Engine does; nothing is loaded where there are no waves.
        """
        waves = iter(waves)
        for first in waves:
            with self.engine() as engine:
                asker = BatchRunner(engine, self.terms)
                for wave in chain([first], waves):
                    yield from asker.ask(wave)

    def engine(self) -> Engine:
        """Load an engine that takes such waves; see Engine.

        Raises:
            ThirteenError: as Engine does.
        """
        queue = self.terms.wave * self.terms.votes
        return Engine(self.model, adapter=self.adapter, profile=PROFILE, threads=self.threads, queue=queue)


AnswerBatches = Callable[
    [BatchJob, Iterable[QuestionBatch]], Generator[BatchResult, None, None]
]  # what has waves answered: BatchJob.ask, or Crew.ask


def split_into_batches(questions: Mapping[int, str], size: int) -> Iterator[QuestionBatch]:
    """Some questions in waves of a size, in their order."""
    numbered = iter(questions.items())
    while wave := dict(islice(numbered, size)):
        yield wave


class BatchRunner:
    """One engine's answers, wave by wave."""

    def __init__(self, engine: Engine, terms: GenerationSettings) -> None:
        """Read what the prompts of all questions share: once, alone, and before the first wave.

        Args:
            engine: of `BatchJob.engine()`.
            terms: how the questions are put.
        """
        self._engine, self._terms = engine, terms
        one, other = (terms.prompt_of(engine, probe) for probe in _PROBES)
        shared = one[: min(common_length(one, other), engine.context)]
        self._shared = shared if len(shared) > LENGTH_MIN else ()
        if self._shared:
            engine.submit(Request(shared, max_tokens=1)).wait()

    def ask(self, wave: QuestionBatch) -> Iterator[BatchResult]:
        """Ask the questions of a wave, by their numbers.

        Yields:
            What became of each, as they end.
        """
        self._engine.forget(but=self._shared)
        requests: dict[int, list[Request]] = {}
        for number, question in wave.items():
            try:
                requests[number] = self._requests(question)
            except RequestError as error:
                yield BatchResult(number, error=str(error))
        handles = iter(self._engine.submit_all([r for some in requests.values() for r in some], wait=True))
        asked = {number: [next(handles) for _ in some] for number, some in requests.items()}
        ended: SimpleQueue[int] = SimpleQueue()
        for number, some in asked.items():
            for handle in some:
                handle.when_done(partial(_put, ended, number))
        missing = {number: len(some) for number, some in asked.items()}
        while missing:
            missing[number := ended.get()] -= 1
            if not missing[number]:
                del missing[number]
                yield _asked(number, asked[number])

    def _requests(self, question: str) -> list[Request]:
        terms = self._terms
        tokens = terms.prompt_of(self._engine, question)
        requests = [
            Request(
                tokens,
                terms.max_tokens,
                sampling,
                stop=terms.stop,
                calculator=terms.calculator,
                logprobs=None if terms.votes == 1 else 0,
            )
            for sampling in terms.sampling.seeded(terms.votes)
        ]
        self._engine.check(requests[0])  # the others differ in their seeds
        return requests


def _put(ended: SimpleQueue[int], number: int, _: Handle) -> None:
    ended.put(number)


def _asked(number: int, handles: Sequence[Handle]) -> BatchResult:
    try:
        answers = tuple(handle.answer() for handle in handles)
    except ModelFileError as error:
        return BatchResult(number, error=str(error), failed=True)
    if len(answers) == 1:
        return BatchResult(number, answers, answers[0])
    return BatchResult(
        number, answers, winner([(handle.answer(), mean_logprob(handle)) for handle in handles], len(answers))
    )
