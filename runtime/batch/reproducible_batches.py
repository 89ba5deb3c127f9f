"""Batches of questions whose answers do not depend on what the engine computed before.

Rounding depends on which tokens are computed together, and the last bits can decide a token. So questions are
answered in batches of fixed size. Each starts when the previous one has ended, with the same prefix cache. A
run that was interrupted or spread over several engines then gives the same answers as any other.
"""

from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

from ...errors import FileError, OptionError, RequestError
from ...files.hashing import file_sha256
from ...files.journal import parse_identity
from ...files.received_files import open_regular
from ..answer import Answer, with_confidence
from ..effort import Effort, VotingRule, parse_effort
from ..engine.engine import Engine
from ..engine.handle import Handle
from ..engine.majority_vote import ScoredAnswer, is_decided, sample_requests, score, select_winner, tally
from ..engine.prefix_cache import PREFIX_TOKENS_MIN, common_length
from ..grammar.grammar import Grammar  # at run time: reports are restored from JSON by their types
from ..native.settings import KV_TYPES, LIBRARIES, PACKAGES, library_version
from ..plan.options import EngineOptions, default_settings, requested_library
from ..plan.plan import EnginePlan
from ..request import MAX_TOKENS, Request, Sampling
from ..validation import check_confidence, check_integer

# Each question on its own. The engines use fewer threads where no bit depends on it.
ENGINE = EngineOptions(profile="server", context=2048, adaptive_threads=True, reproducible=True)
# Fields of Settings, in the order of the journals' identities.
_ALLOCATION = ["context", "slots", "batch", "kv", "repack", "prefix_bytes", "flash_attention", "gpu_layers"]
_CHOSEN = ("flash_attention", "kv", "library")  # by measurement, where they are open
_BATCH_QUESTIONS = 40  # five times the slots, so that few slots are idle at the end of a wave
_IDENTITY_MAX = 1 << 24  # bytes of a journal's first line
_TURN = "batch"  # of all requests: the scheduler keeps a slot free for others while there are several
_PROBES = ("1", "2")  # questions without a common prefix: their prompts share what is the same for all


QuestionBatch = Mapping[int, str]  # question number -> question


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Settings of all questions of a run; see Engine.request().

    For several answers, greedy sampling becomes temperature 0.7.
    """

    system: str | None = None
    effort: Effort = Effort.LOW
    min_confidence: float = 0.0
    sampling: Sampling = field(default_factory=Sampling)
    calculator: bool = True
    max_tokens: int = MAX_TOKENS
    think: bool | None = None
    think_budget: int | None = None
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        check_integer("max_tokens", self.max_tokens, 1)
        object.__setattr__(self, "effort", parse_effort(self.effort))
        check_confidence(self.min_confidence)
        if self.grammar and self.effort.votes:
            raise OptionError("effort", "cannot be combined with {grammar}: the answers vote", self.effort)

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return _BATCH_QUESTIONS // (2 if self.effort.votes else 1)

    @property
    def rule(self) -> VotingRule:
        """How many answers are sampled to a question with a number."""
        return self.effort.rule.until(self.min_confidence)

    @property
    def options(self) -> dict[str, Any]:
        """The settings of each request, without those of subclasses."""
        return {one.name: getattr(self, one.name) for one in fields(GenerationSettings)}

    def request(self, engine: Engine, question: str, number: int = 0) -> Request:
        """Make the request that asks a question; subclasses may ask by its number.

        Raises:
            RequestError: the question is empty, or the chat template rejects it.
        """
        return engine.request(question, **self.options)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Result of one question.

    Attributes:
        number: number of the question.
        samples: all answers, in the order of their seeds; empty after an error.
        answer: the only sample, or the one that the majority vote selects; None after an error.
        error: what went wrong; None without an error.
        failed: whether the computation failed; otherwise an error is the question's.
        tokens: of each sample whose request asks for log-probabilities the tokens, sampled or inserted, with
            the end-of-generation token if it asks to report the end.
    """

    number: int
    samples: tuple[Answer, ...] = ()
    answer: Answer | None = None
    error: str | None = None
    failed: bool = False
    tokens: tuple[tuple[int, ...], ...] = ()


def package_versions() -> dict[str, str]:
    """Versions of the packages that the answers depend on."""
    return {"thirteen": version("thirteen"), "llama_cpp_python": version("llama-cpp-python")}


@dataclass(frozen=True, slots=True)
class BatchJob:
    """Model and settings of a run.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file, applied at run time; None for the model alone.
        settings: generation settings.
        threads: compute threads.
        engine: options of an engine, without files and threads.
    """

    model: Path
    adapter: Path | None
    settings: GenerationSettings
    threads: int
    engine: EngineOptions = field(default_factory=lambda: ENGINE)

    def decided(self, journal: Path | None = None, run: str = "") -> "BatchJob":
        """The job for all workers: with the attention, KV type and library that its options leave open.

        They are those of an earlier run; see read_settings(). A choice of this run may differ, by free memory
        or by what other programs disturb. Without one, they are those that are faster on this processor, for
        which the model may be loaded.
        """
        given = {name: value for name, value in self.engine.items() if name in _CHOSEN and value is not None}
        if given.keys() >= {"flash_attention", "kv"}:  # another library leaves neither of the two open
            return self
        chosen = read_settings(journal, run) if journal else None
        if chosen and requested_library(self._options) not in {None, chosen["library"]}:
            chosen = None  # the journal then says what differs
        if not chosen:
            files = EngineOptions(adapter=self.adapter)
            one = EnginePlan.make(self.model, **self._options | files).settings
            chosen = EngineOptions(flash_attention=one.flash_attention, kv=one.kv, library=one.library)
        given["library"] = chosen["library"]  # which may have been given as "auto"
        return replace(self, engine=cast(EngineOptions, {**self.engine, **chosen, **given}))

    @property
    def _options(self) -> EngineOptions:
        return self.engine | EngineOptions(threads=self.threads)

    @property
    def allocation(self) -> dict[str, Any]:
        """What an engine of the job allocates, as JSON values."""
        settings = default_settings(self._options)
        return {name: getattr(settings, name) for name in _ALLOCATION}

    @property
    def files(self) -> tuple[Path, ...]:
        """The model, and the adapter if there is one."""
        return (self.model,) if self.adapter is None else (self.model, self.adapter)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on, as JSON values, of a decided job. Hashes the files."""
        settings, library = self.settings, default_settings(self._options).library
        package = PACKAGES[library].replace("-", "_")
        other = {"library": library, package: library_version(library)}
        return {
            "model_sha256": file_sha256(self.model),
            "adapter_sha256": None if self.adapter is None else file_sha256(self.adapter),
            **{
                name: value
                for name, value in settings.options.items()
                if name not in ("sampling", "grammar") and not (name.startswith("think") and value is None)
            },
            **({"grammar": settings.grammar.source} if settings.grammar else {}),
            **asdict(settings.sampling),
            "rule": asdict(settings.rule),
            "batch_size": settings.batch_size,
            "threads": self.threads,
            **self.allocation,
            **package_versions(),
            **(other if library != LIBRARIES[0] else {}),
        }

    def run(self, batches: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        """Answer batches with one engine on this machine, which is not loaded if there are none.

        Yields:
            The result of each question as it finishes.
        """
        batches = iter(batches)
        for first in batches:
            with self.load_engine() as engine:
                runner = BatchRunner(engine, self.settings)
                for batch in chain([first], batches):
                    yield from runner.run(batch)

    def load_engine(self, *, untrusted: bool | None = None) -> Engine:
        """Load an engine whose queue takes a whole batch; for `untrusted`, see EngineOptions."""
        queue = self.settings.batch_size * self.settings.rule.width
        files = EngineOptions(adapter=self.adapter, queue=queue, untrusted=untrusted)
        return Engine(self.model, **self._options | files)


def read_settings(journal: Path, run: str) -> EngineOptions | None:
    """Attention, KV type and library of an earlier run; None if its journal does not say. See Journal."""
    identity = None
    with suppress(OSError), open_regular(journal) as file:
        identity = parse_identity(file.readline(_IDENTITY_MAX), run)
    flash, kv = ((identity or {}).get(name) for name in ("flash_attention", "kv"))
    library = (identity or {}).get("library", LIBRARIES[0])
    # A list: what a damaged file has may be no key of a dictionary.
    valid = type(flash) is bool and kv in list(KV_TYPES) and library in list(LIBRARIES)
    return EngineOptions(flash_attention=flash, kv=kv, library=library) if valid else None


# Answers the batches of a job: BatchJob.run, or RayWorkers.run.
BatchExecutor = Callable[[BatchJob, Iterable[QuestionBatch]], Generator[BatchResult, None, None]]


def answer_missing(
    job: BatchJob, questions: Mapping[int, str], done: Container[int], executor: BatchExecutor = BatchJob.run
) -> Generator[BatchResult, None, None]:
    """Answer the questions whose numbers are not done, until a computation fails.

    A batch that was interrupted runs again as a whole, because its answers depend on which questions are
    computed together.

    Yields:
        The results of those that are not done when it begins.

    Raises:
        FileError: a computation failed, or the executor raises it.
        ThirteenError: the executor raises it.
    """
    missing = {number for number in questions if number not in done}
    batches = split_into_batches(questions, job.settings.batch_size)
    with closing(executor(job, (batch for batch in batches if missing & batch.keys()))) as results:
        for result in results:
            if result.failed:
                raise FileError(f"{job.model}: {result.error}")
            if result.number in missing:
                yield result


def split_into_batches(questions: Mapping[int, str], size: int) -> Iterator[QuestionBatch]:
    """Split questions into batches of `size`, in their order."""
    remaining = iter(questions.items())
    while batch := dict(islice(remaining, size)):
        yield batch


def prefill_shared_prefix(engine: Engine, settings: GenerationSettings) -> tuple[int, ...]:
    """Compute what the prompts of all questions begin with, such as worked examples, if it is worth keeping.

    Returns:
        Its tokens.
    """
    probes = (settings.request(engine, probe, number) for number, probe in enumerate(_PROBES))
    one, other = (request.examples or request.tokens for request in probes)
    prefix = one[: min(common_length(one, other), engine.context)]
    if len(prefix) <= PREFIX_TOKENS_MIN:
        return ()
    engine.submit(Request(prefix, max_tokens=1, turn=_TURN)).wait()
    return prefix


class BatchRunner:
    """Answers batches with one engine."""

    def __init__(self, engine: Engine, settings: GenerationSettings) -> None:
        """Prefill what all prompts share: once, alone, and before the first batch."""
        self._engine, self._settings = engine, settings
        self._prefix = prefill_shared_prefix(engine, settings)

    def run(self, batch: QuestionBatch) -> Iterator[BatchResult]:
        """Answer a batch.

        Yields:
            The result of each question as it finishes.
        """
        self._engine.clear_prefix_cache(keep=self._prefix)
        votes: list[_Vote] = []
        for number, question in batch.items():
            try:
                request = self._settings.request(self._engine, question, number)
                self._engine.check_request(request)
            except RequestError as error:
                yield BatchResult(number, error=str(error))
            else:
                rule = self._settings.rule if request.effort is self._settings.effort else Effort.LOW.rule
                votes.append(_Vote(number, sample_requests(request, rule), rule))
        while votes:  # a wave of each at a time: what is computed together depends on nothing else
            yield from self._run_wave(votes)
            votes = [vote for vote in votes if not vote.decided]

    def _run_wave(self, votes: "Sequence[_Vote]") -> Iterator[BatchResult]:
        """Sample the next wave of answers to each question; yields the results of those that need no more."""
        waves = [vote.next_wave() for vote in votes]
        submitted = iter(self._engine.submit_all([*chain.from_iterable(waves)], wait=True))
        finished: SimpleQueue[Handle] = SimpleQueue()
        owners: dict[Handle, _Vote] = {}
        for vote, wave in zip(votes, waves, strict=True):
            handles = list(islice(submitted, len(wave)))
            vote.handles += handles
            owners |= dict.fromkeys(handles, vote)
        for handle in owners:
            handle.call_at_end(finished.put)
        unfinished = Counter(owners.values())
        while +unfinished:
            unfinished[vote := owners[finished.get()]] -= 1
            if not unfinished[vote] and (result := vote.result(self._settings.min_confidence)):
                yield result


@dataclass(eq=False)
class _Vote:
    """A question that is being answered.

    Attributes:
        number: number of the question.
        requests: requests that sample its answers.
        rule: how many of them are needed.
        handles: handles of those that were submitted.
        scored: their answers, once they have ended.
        decided: whether no more are needed.
    """

    number: int
    requests: Sequence[Request]
    rule: VotingRule
    handles: list[Handle] = field(default_factory=list)
    scored: list[ScoredAnswer] = field(default_factory=list)
    decided: bool = False

    def next_wave(self) -> Sequence[Request]:
        """The requests that are to be submitted next."""
        start, counts = len(self.handles), tally(self.scored, self.rule).counts
        end = start + self.rule.wave(*counts, self.rule.answers - start)
        return [replace(one, turn=_TURN) for one in self.requests[start:end]]

    def result(self, min_confidence: float) -> BatchResult | None:
        """The result, once a wave has ended; None if more answers are needed."""
        try:
            self.scored += [score(handle) for handle in self.handles[len(self.scored) :]]
        except (FileError, RequestError) as error:  # the latter as where a grammar allows no further token
            self.decided = True
            return BatchResult(self.number, error=str(error), failed=isinstance(error, FileError))
        self.decided = is_decided(self.scored, self.rule)
        if not self.decided:
            return None
        samples = tuple(answer for answer, _ in self.scored)
        tokens = tuple(
            tuple(one.token for piece in handle for one in piece.logprobs) for handle in self.handles
        )
        answer = select_winner(self.scored, self.rule) if samples[1:] else samples[0]
        return BatchResult(self.number, samples, with_confidence(answer, min_confidence), tokens=tokens)
