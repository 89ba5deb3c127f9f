"""Batches of questions whose answers do not depend on what the engine computed before.

Rounding depends on which tokens are computed together, and the last bits can decide a token. So questions are
answered in batches of fixed size. Each starts when the previous one has ended, with an empty prefix cache. A
run that was interrupted or spread over several engines then gives the same answers as any other.
"""

from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ...errors import FileError, RequestError
from ...files.received_files import file_sha256
from ..answer import Answer, with_confidence
from ..engine.engine import Engine
from ..engine.handle import Handle
from ..engine.majority_vote import sample_requests, select_winner, tally
from ..engine_options import EngineOptions
from ..llama.model import read_model_header
from ..llama.settings import PACKAGES
from ..options import Options, Request, VotingRule
from ..plan import EnginePlan, decide_settings

# Each question on its own. The engines use fewer threads where no bit depends on it.
ENGINE = EngineOptions(profile="server", context=2048, adaptive_threads=True, reproducible=True)
_BATCH_QUESTIONS = 40  # five times the slots, so that few slots are idle at the end of a wave


QuestionBatch = Mapping[int, str]  # question number -> question


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How the questions of a run are asked; subclasses may ask otherwise."""

    options: Options = field(default_factory=Options)

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return _BATCH_QUESTIONS // (2 if self.options.effort.votes else 1)

    @property
    def rule(self) -> VotingRule:
        """How many answers are sampled to a question with a number."""
        return self.options.effort.rule.until(self.options.min_confidence)

    def request(self, engine: Engine, question: str, number: int = 0) -> Request:
        """Make the request that asks a question; subclasses may ask by its number."""
        return engine.request(question, self.options)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Result of one question."""

    number: int  # number of the question
    samples: tuple[Answer, ...] = ()  # all answers, in the order of their seeds; empty after an error
    answer: Answer | None = None  # the only sample, or the one that the majority vote selects
    error: str | None = None  # what went wrong; None without an error
    failed: bool = False  # whether the computation failed; otherwise an error is the question's
    tokens: tuple[tuple[int, ...], ...] = ()  # of each sample with log-probabilities


@dataclass(frozen=True, slots=True)
class BatchJob:
    """Model and settings of a run."""

    model: Path  # a GGUF file
    adapter: Path | None  # a LoRA in a GGUF file, applied at run time; None for the model alone
    settings: BatchSettings  # how the questions are asked
    threads: int  # compute threads
    engine: EngineOptions = field(default_factory=lambda: ENGINE)  # options of an engine

    def decided(self) -> "BatchJob":
        """The job with the attention, KV type and library that its options leave open, for all workers."""
        settings = decide_settings(self._options, read_model_header(self.model))
        chosen = {name: getattr(settings, name) for name in ("flash_attention", "kv", "library")}
        return replace(self, engine=replace(self.engine, **chosen))

    @property
    def _options(self) -> EngineOptions:
        return replace(self.engine, threads=self.threads)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON values, of a decided job. Hashes the files."""
        settings = self._options.settings()
        return {
            "model_sha256": file_sha256(self.model),
            "adapter_sha256": None if self.adapter is None else file_sha256(self.adapter),
            **asdict(self.settings.options),
            "rule": asdict(self.settings.rule),
            "batch_size": self.settings.batch_size,
            **asdict(settings),
            **{package: version(package) for package in ("thirteen", PACKAGES[settings.library])},
        }

    def run(self, batches: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        """Answer batches with one engine on this machine; yields the results as they finish."""
        with ExitStack() as stack:
            engine = None
            for batch in batches:
                engine = engine or stack.enter_context(self.load_engine())
                yield from answer_batch(engine, self.settings, batch)

    def load_engine(self) -> Engine:
        """Load an engine whose queue takes a whole batch."""
        queue = self.settings.batch_size * self.settings.rule.width
        options = replace(self._options, adapter=self.adapter, queue=queue)
        return Engine(EnginePlan.make(self.model, options))


# Answers the batches of a job: BatchJob.run, or RayWorkers.run.
BatchExecutor = Callable[[BatchJob, Iterable[QuestionBatch]], Generator[BatchResult, None, None]]


def answer_missing(
    job: BatchJob, questions: Mapping[int, str], done: Container[int], executor: BatchExecutor = BatchJob.run
) -> Generator[BatchResult, None, None]:
    """Answer the questions whose numbers are not done, until a computation fails with a FileError.

    A batch that was interrupted runs again as a whole, because its answers depend on which questions are
    computed together.
    """
    missing = {number for number in questions if number not in done}
    remaining = iter(questions.items())
    batches = iter(lambda: dict(islice(remaining, job.settings.batch_size)), {})
    with closing(executor(job, (batch for batch in batches if missing & batch.keys()))) as results:
        for result in results:
            if result.failed:
                raise FileError(f"{job.model}: {result.error}")
            if result.number in missing:
                yield result


def answer_batch(engine: Engine, settings: BatchSettings, batch: QuestionBatch) -> Iterator[BatchResult]:
    """Answer a batch; yields the result of each question once no more answers to it are needed."""
    engine.clear_prefix_cache()
    undecided: list[_Vote] = []
    for number, question in batch.items():
        try:
            request = settings.request(engine, question, number)
            engine.check_request(request)
        except RequestError as error:
            yield BatchResult(number, error=str(error))
            continue
        # Not without a number to vote on.
        can_vote = request.options.effort.votes == settings.options.effort.votes
        rule = settings.rule if can_vote else VotingRule()
        undecided.append(_Vote(number, sample_requests(request, rule), rule))
    while undecided:  # a wave of each at a time: what is computed together depends on nothing else
        votes, undecided = undecided, []
        waves = [vote.next_wave() for vote in votes]
        handles = iter(engine.submit_all([*chain.from_iterable(waves)], wait=True))
        for vote, wave in zip(votes, waves, strict=True):
            vote.handles += islice(handles, len(wave))
            if result := vote.result(settings.options.min_confidence):
                yield result
            else:
                undecided.append(vote)


@dataclass
class _Vote:
    number: int  # number of the question
    requests: Sequence[Request]  # requests that sample its answers
    rule: VotingRule  # how many of them are needed
    handles: list[Handle] = field(default_factory=list)  # handles of those that were submitted
    answers: list[Answer] = field(default_factory=list)  # of earlier waves

    def next_wave(self) -> Sequence[Request]:
        """The requests that are to be submitted next."""
        start, counts = len(self.handles), tally(self.answers, self.rule).counts
        return self.requests[start : start + self.rule.wave(*counts, self.rule.answers - start)]

    def result(self, min_confidence: float) -> BatchResult | None:
        """Wait for the wave, and return the result; None if more answers are needed."""
        try:
            self.answers += [handle.answer() for handle in self.handles[len(self.answers) :]]
        except (FileError, RequestError) as error:  # the latter as where a grammar allows no further token
            return BatchResult(self.number, error=str(error), failed=isinstance(error, FileError))
        counted = tally(self.answers, self.rule)
        if not self.rule.is_decided(*counted.counts, counted.asked - counted.ended):
            return None
        samples = tuple(self.answers)
        tokens = tuple(
            tuple(one.token for piece in handle for one in piece.logprobs) for handle in self.handles
        )
        answer = select_winner(samples, self.rule) if samples[1:] else samples[0]
        return BatchResult(self.number, samples, with_confidence(answer, min_confidence), tokens=tokens)
