"""The engine: a model that answers, from any thread, many questions at once."""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, Self, TypedDict, Unpack

import numpy as np

from ...errors import PromptLengthError, RequestError
from ...files.hashing import file_sha256
from .. import request as state
from ..answer import Answer
from ..grammar.grammar import Grammar
from ..llama.compute_thread import COMPUTE_THREAD
from ..llama.context import CONTEXT_MAX, Context, ContextParams, Span
from ..llama.library import Logits
from ..llama.model import LoraAdapter, Model
from ..profile import Profile, profile_named
from ..request import BASE, Request, Sampling, check_integer
from ..threads import default_threads
from .chat_template import Message, PromptEncoder, read_chat_template
from .dispatcher import Dispatcher, EngineLoad
from .handle import Handle, Piece
from .majority_vote import MajorityVote, check_votes
from .memory_estimate import check_memory
from .prefix_cache import PrefixCache
from .runner import Runner
from .scoring import ContinuationScorer

QUEUE = 64
_GREEDY = Sampling()
_ADAPTER = "adapter"  # the name of the one that is given without a name
_PAIRS = 8  # continuations that are read at once: about as many as fill a batch
_LOGITS_ROWS = 64  # positions computed at once by logits(): each is a row of a vocabulary's width in memory


class Options(TypedDict, total=False):
    """What can be told of a question: the keywords of Engine.request(), which explains them."""

    system: str | None
    sampling: Sampling
    max_tokens: int
    stop: Sequence[str]
    calculator: bool
    grammar: Grammar | None
    adapter: str | None


class Engine:
    """A model that answers, several questions at once if they come so, from any thread.

    Attributes:
        model: the model file, its vocabulary and its description.
        context: tokens of prompt and answer together that a request can have: as many as asked for, but never
            more than the model was trained for.
        profile: what it has set aside.
    """

    def __init__(  # noqa: PLR0913 - a user says here, once, all that can be said
        self,
        path: str | Path,
        *,
        profile: str | Profile = "laptop",
        adapter: str | Path | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        context: int | None = None,
        slots: int | None = None,
        threads: int | None = None,
        batch: int | None = None,
        kv: str | None = None,
        prefix_bytes: int | None = None,
        prefix_folder: str | Path | None = None,
        lookup: int | None = None,
        queue: int = QUEUE,
    ) -> None:
        """Load a model.

        Args:
            path: a GGUF file.
            profile: what to set aside: "laptop", "server", "phone", or one of your own.
            adapter: a LoRA in a GGUF file, applied while running to the requests that name no other.
            adapters: more of them, by the names that requests have for them.
            context: the most tokens of a request, clamped to what the model was trained for; by default, as
                the next ones, the profile's.
            slots: how many requests run at once; others wait. Each has memory for `context` tokens set aside.
            threads: by default what `thirteen bench tune-threads` found, or one for each physical core.
            batch: the most tokens computed in one step.
            kv: the type of keys and values, f16 or q8_0.
            prefix_bytes: memory for keys and values of beginnings of prompts; 0 keeps none.
            prefix_folder: where these outlast the engine, in as many bytes again. Prompts can be read there:
                it is to be as private as they are.
            lookup: the most tokens of a draft by prompt lookup, which changes no answer; 0 makes none.
            queue: how many requests may wait; more are refused.

        Raises:
            ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
            AdapterError: an adapter is not one for this model.
            NoRoomError: it needs more memory than there is; nothing has been loaded.
            RequestError: a number is out of bounds, or a name is not known.
        """
        self.profile = _profile(
            profile,
            context=context,
            slots=slots,
            batch=batch,
            kv=kv,
            prefix_bytes=prefix_bytes,
            lookup=lookup,
        )
        check_integer("context", self.profile.context, 1)
        check_integer("prefix_bytes", self.profile.prefix_bytes, 0)
        check_integer("lookup", self.profile.lookup, 0)
        check_integer("queue", queue, 0)
        files = {name: Path(file) for name, file in (adapters or {}).items()}
        if {BASE, _ADAPTER} & files.keys():
            raise RequestError(f"adapters: {BASE!r} and {_ADAPTER!r} are names that the engine gives")
        if adapter is not None:
            files[_ADAPTER] = Path(adapter)
        room = _room(self.profile, threads)
        with ExitStack() as handles:
            admit = partial(check_memory, profile=self.profile, threads=room.prefill_threads or room.threads)
            self.model = handles.enter_context(Model(Path(path), repack=self.profile.repack, admit=admit))
            self._loaded: dict[str, LoraAdapter | None] = {BASE: None}
            handles.callback(self._close_adapters)
            for name, file in files.items():
                self._loaded[name] = LoraAdapter(self.model, file)
            self.context = min(self.profile.context, self.model.context_trained)
            self._room = replace(room, context=self.context)
            cache = self._prefixes(files, prefix_folder)
            self._runner = Runner(self._context(), self._loaded, cache, self.profile.lookup)
            handles.callback(self._runner.close)
            template = read_chat_template(self.model.header, self.model.bos, self.model.eos)
            self._prompter = PromptEncoder(self.model, template)
            self._owned = handles.pop_all()
        self._default = BASE if adapter is None else _ADAPTER
        self._intake = Dispatcher(self.model, self._runner, slots=self.profile.slots, queue=queue)
        self._measuring_turn = Lock()

    def _context(self) -> Context:
        """What computes the requests."""
        return Context(self.model, self._room)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that a request can choose from."""
        return tuple(self._loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def load(self) -> EngineLoad:
        """How many requests there are now."""
        return self._intake.load

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or an error that nobody foresaw has ended it."""
        return self._intake.closed

    def close(self) -> None:
        """End what is running and free the model; a second call does nothing."""
        if self._intake.close():
            self._owned.close()

    def submit(self, request: Request, *, wait: bool = False) -> Handle:
        """Take in a request; see submit_all().

        Returns:
            What tells of it, and can end it.
        """
        return self.submit_all([request], wait=wait)[0]

    def submit_all(self, requests: Sequence[Request], *, wait: bool = False) -> list[Handle]:
        """Take in requests, which begin together as far as there are slots for them.

        Args:
            requests: what to answer.
            wait: whether to wait for places where there are too few.

        Returns:
            For each in turn what tells of it, and can end it.

        Raises:
            RequestError: a prompt is longer than the context, has a token that the model does not know, or
                names an adapter that the engine does not have; llama.cpp does not take a grammar; or the
                engine is closed. As with BusyError, none of the requests goes on.
            BusyError: as many requests wait as may.
        """
        return self._intake.submit([self._sequence(request) for request in requests], wait=wait)

    def request(  # noqa: PLR0913 - what can be told of a question, each with its default
        self,
        question: str,
        *,
        system: str | None = None,
        sampling: Sampling = _GREEDY,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        calculator: bool = True,
        grammar: Grammar | None = None,
        adapter: str | None = None,
    ) -> Request:
        """The request that asks a question.

        Args:
            question: what to ask; no text in it acts as a control token.
            system: what to tell the model beforehand.
            sampling: how tokens are chosen; by default always the likeliest.
            max_tokens: the most tokens that the answer may have.
            stop: texts that end the answer, and are not part of it.
            calculator: whether sums in the answer, as "12 * 13 =", get their exact results, which the model
                is not asked for.
            grammar: what the answer must follow, from grammar.from_schema() or from_gbnf(); then no sum is
                completed. It is cut short if the tokens run out.
            adapter: the name of one of the engine's, or "base" for none; by default the engine's own.

        Raises:
            RequestError: the question is empty, or the template does not take it.
        """
        with self._intake.using():
            tokens = self._prompter.tokens(question, system)
        return Request(
            tokens,
            max_tokens,
            sampling,
            stop=stop,
            calculator=calculator,
            grammar=grammar,
            adapter=adapter,
        )

    def conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The prompt, in tokens, of a conversation whose next message the model is to write; see Request.

        Raises:
            RequestError: nothing is said in it, or the template does not take it.
        """
        with self._intake.using():
            return self._prompter.conversation(messages)

    def plain(self, text: str) -> tuple[int, ...]:
        """The prompt, in tokens, of a text that the model is to go on with; see Request.

        Raises:
            RequestError: it is too long to be read.
        """
        with self._intake.using():
            return self._prompter.plain(text)

    def answer(self, question: str, **options: Unpack[Options]) -> Answer:
        """Ask a question and wait for the answer; see request() and submit().

        Raises:
            RequestError: the question is empty or does not fit the context, or the template does not take it.
        """
        (answer,) = self.answers([question], **options)
        return answer

    def answers(self, questions: Sequence[str], **options: Unpack[Options]) -> list[Answer]:
        """Ask several questions at once; see answer(). The answers are in the order of the questions."""
        requests = [self.request(question, **options) for question in questions]
        handles = self.submit_all(requests, wait=True)
        try:
            return [handle.answer() for handle in handles]
        finally:
            _abort(handles)

    def poll(self, question: str, votes: int, **options: Unpack[Options]) -> MajorityVote:
        """Have a question answered several times over, until the value that most give is certain.

        Args:
            question: what to ask.
            votes: how many answers, each with a seed of its own; from 1 to 64.
            options: see request(). What is greedy would always be the same: such sampling is taken at a
                temperature of 0.7.

        Raises:
            RequestError: as request() and submit() do, or `votes` is out of bounds.
            BusyError: there are not as many places.
        """
        check_votes(votes)
        request = replace(self.request(question, **options), logprobs=0)
        samplings = request.sampling.varied.seeded(votes)
        return MajorityVote(self.submit_all([replace(request, sampling=sampling) for sampling in samplings]))

    def stream(self, question: str, **options: Unpack[Options]) -> Iterator[Piece]:
        """Ask a question and have the text as it comes; see answer().

        Yields:
            Pieces of text; the last one carries the answer.
        """
        yield from self.submit(self.request(question, **options), wait=True)

    def forget(self, *, but: Sequence[int] = ()) -> None:
        """Forget the beginnings of prompts that are kept in memory, all but one.

        In which batches keys and values were computed shows in their last bits. So a measurement that is to
        repeat begins each part with the same ones.

        Args:
            but: the tokens of a beginning that was read under the engine's own adapter.

        Raises:
            RequestError: the engine is closed.
        """
        with self._intake.using():
            COMPUTE_THREAD.call(partial(self._runner.forget, self._default, tuple(but)))

    def check(self, request: Request) -> None:
        """Raise RequestError if a request can never be run here; see submit_all()."""
        self._sequence(request)

    def swap(self, name: str, path: str | Path) -> None:
        """Load an adapter under a name, in the place of the one that has it if there is one.

        Args:
            name: for requests.
            path: a LoRA in a GGUF file.

        Raises:
            ModelFileError: the file is not a GGUF, or is damaged.
            AdapterError: it is not one for this model.
            RequestError: requests are running, or the engine keeps beginnings of prompts, which would outlive
                the adapter they were read under; or it is closed.
        """
        if name == BASE or self.profile.prefix_bytes:
            raise RequestError(
                f"swap: {name!r} in an engine of prefix_bytes {self.profile.prefix_bytes}: not 0"
            )
        with self._intake.using(), self._measuring_turn, ExitStack() as handles:
            adapter = handles.enter_context(LoraAdapter(self.model, Path(path)))
            old = COMPUTE_THREAD.call(partial(self._runner.swap, name, adapter))
            handles.pop_all()
            if old:
                old.close()

    def _close_adapters(self) -> None:
        for adapter in self._loaded.values():
            if adapter:
                adapter.close()

    def log_likelihoods(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], adapter: str | None = None
    ) -> list[tuple[float, ...]]:
        """How likely the model finds continuations, many at once.

        Args:
            pairs: the tokens before, and those of the continuation.
            adapter: the name of one of the engine's; by default the engine's own.

        Returns:
            For each in turn the log-probability of each token of the continuation, in nats.

        Raises:
            RequestError: a part is empty, too long or has an unknown token; there is no such adapter; or the
                engine is closed.
            ModelFileError: the computation failed.
        """
        name = self._named(adapter)
        with self._intake.using(), self._measuring_turn:
            return self._likelihoods.read(pairs, self._loaded[name])

    @cached_property
    def _likelihoods(self) -> ContinuationScorer:
        room = replace(self._room, slots=min(self._room.slots, _PAIRS))
        return self._owned.enter_context(ContinuationScorer(self.model, room))

    def _sequence(self, request: Request) -> state.SequenceState:
        """What the runner is to have of a request, if it can be run."""
        self.model.check_tokens(request.tokens)
        if len(request.tokens) > self.context:
            raise PromptLengthError(
                f"the prompt has {len(request.tokens)} tokens, but the context holds {self.context} "
                f"(the model was trained for {self.model.context_trained})"
            )
        adapter = self._named(request.adapter)
        return state.SequenceState(request, self.context, adapter, submitted_at=perf_counter())

    def _named(self, adapter: str | None) -> str:
        """The name of an adapter that is there, the engine's own if none is given."""
        name = self._default if adapter is None else adapter
        if name not in self.adapters:
            raise RequestError(f"adapter: {name!r} is not one of {', '.join(self.adapters)}")
        return name

    def logits(self, tokens: Sequence[int]) -> Logits:
        """The logits after each of `tokens`, computed exactly and apart from the requests that are running.

        Returns:
            An array (tokens, vocabulary), not normalized.

        Raises:
            RequestError: there are none, more than the context holds, or one that the model does not know; or
                the engine is closed.
        """
        if not 1 <= len(tokens) <= self.context:
            raise RequestError(f"logits: from 1 to {self.context} tokens fit the context, not {len(tokens)}")
        out = np.empty((len(tokens), self.model.vocabulary_size), np.float32)  # (n, vocab)
        with self._intake.using(), self._measuring_turn:
            native = self._measuring
            try:
                for start in range(0, len(tokens), native.room.batch):
                    part = tuple(tokens[start : start + native.room.batch])
                    for position, row in enumerate(native.decode([Span(0, start, part, len(part))]), start):
                        out[position] = native.logits_row(row)
            finally:
                native.clear(0)
        return out

    @cached_property
    def _measuring(self) -> Context:
        rows = min(_LOGITS_ROWS, self._room.context)
        room = ContextParams(self._room.context, 1, rows, self._room.threads, outputs=rows, exact=True)
        return self._owned.enter_context(Context(self.model, room, self._loaded[self._default]))

    def _prefixes(self, adapters: Mapping[str, Path], folder: str | Path | None) -> PrefixCache | None:
        if not self.profile.prefix_bytes:
            return None
        kind = (self.profile.kv, self.profile.slots)  # llama.cpp takes back what had as many slots beside it
        model = self.model.header.path
        folders = {} if folder is None else _folders(Path(folder), model, adapters, kind)
        return PrefixCache(self.profile.prefix_bytes, folders)


def _abort(handles: Sequence[Handle]) -> None:
    for handle in handles:
        handle.abort()


def _room(profile: Profile, threads: int | None) -> ContextParams:
    """What a profile asks of a context, before it is known how long the model's can be.

    Raises:
        RequestError: a number is out of bounds, or the type of keys and values is not known.
    """
    default = default_threads()
    return ContextParams(
        context=min(profile.context, CONTEXT_MAX),
        slots=profile.slots,
        batch=profile.batch,
        threads=default.decode if threads is None else threads,
        prefill_threads=default.prefill if threads is None else threads,
        outputs=profile.slots * (1 + profile.lookup),
        kv=profile.kv,
    )


def _profile(name: str | Profile, **changes: Any) -> Profile:
    """A profile by its name, or itself, with what is not None changed."""
    if isinstance(name, str):
        name = profile_named(name)
    return replace(name, **{field: value for field, value in changes.items() if value is not None})


def _folders(
    parent: Path, model: Path, adapters: Mapping[str, Path], kind: tuple[str, int]
) -> dict[str, Path]:
    """A folder for each adapter and for none, named by all that keys and values depend on."""
    build = (version("llama-cpp-python"), platform.machine(), *kind, file_sha256(model))
    hashes = {BASE: ""} | {name: file_sha256(path) for name, path in adapters.items()}
    return {
        name: parent / sha256(json.dumps((*build, adapter)).encode()).hexdigest()
        for name, adapter in hashes.items()
    }
