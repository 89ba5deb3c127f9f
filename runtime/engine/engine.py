"""The engine: one model that answers many requests at once, from any thread."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

from ...errors import PromptLengthError, RequestError
from ...files.gguf.header import Header
from ..answer import Answer
from ..forks import ForkCheck
from ..llama.autotune import choose_settings
from ..llama.compute_settings import limit_settings
from ..llama.compute_thread import COMPUTE_THREAD, run_uninterrupted
from ..llama.context import Context
from ..llama.logits import Logits
from ..llama.memory_estimate import check_memory
from ..llama.model import LoraAdapter, Model
from ..load_probe import probe_model_files
from ..profile import Profile
from ..prompt.prompt_encoder import JsonObject, Message, PromptEncoder
from ..prompt.template_process import read_chat_template
from ..request import BASE, Request, Sampling, SequenceState, TokenLogprob
from .config import EngineConfig, EngineOptions
from .dispatcher import Dispatcher, EngineLoad
from .handle import Handle, Piece
from .majority_vote import MajorityVote, vote_requests
from .prefix_cache import PrefixCache, common_length, prefix_folders
from .runner import Runner
from .scoring import ContinuationScorer, compute_logits, continuation_params, exact_params

if TYPE_CHECKING:  # see request.py
    from ..grammar.grammar import Grammar

_GREEDY = Sampling()


class RequestOptions(TypedDict, total=False):
    """Keywords of Engine.request(), which documents them."""

    system: str | None
    sampling: Sampling
    max_tokens: int
    stop: Sequence[str]
    calculator: bool
    grammar: "Grammar | None"
    adapter: str | None
    namespace: str


class Engine:
    """A model that answers many requests at once, from any thread.

    Attributes:
        model: the loaded model.
        context: maximum tokens per request, prompt and answer together.
        profile: what is allocated.
        queue: maximum number of waiting requests.
    """

    def __init__(self, path: str | Path, **options: Unpack[EngineOptions]) -> None:
        """Load a model.

        Args:
            path: a GGUF file.
            options: keyword arguments, each optional:
                profile: what to allocate: "laptop" (the default), "server", "phone", or a Profile.
                adapter: a LoRA in a GGUF file, applied at run time to the requests that name no other.
                adapters: further adapters, by the names that requests give.
                context: maximum tokens per request, clamped to the context that the model was trained for.
                slots: number of requests that run at once. Each has memory for `context` tokens.
                threads: number of compute threads; by default the number that is fastest on this processor.
                adaptive_threads: whether to use fewer threads while other programs use the processors; by
                    default if `threads` is not given.
                reproducible: whether they do so only where no bit of an answer depends on it.
                batch: maximum tokens per step.
                kv: type of the KV cache, f16, bf16 or q8_0; by default the faster of f16 and bf16 on this
                    processor, or q8_0 where memory is short.
                prefix_bytes: memory of the prefix cache; 0 turns it off.
                prefix_folder: folder in which the prefix cache outlives the engine, with as many bytes again.
                    Prompts can be read there: keep it as private as they are.
                flash_attention: whether to compute attention without storing its scores; by default the way
                    that is faster on this processor.
                micro_batch: maximum tokens computed at once; by default the faster number on this processor.
                gpu_layers: layers that a GPU computes, or "all": first the output matrix, which counts as
                    one, then from the last layer on. 0 uses the processor alone.
                queue: maximum number of waiting requests (64 by default); more are refused.
                untrusted: whether to load the files in another process first, with limits, so that a file
                    which crashes llama.cpp is a ModelFileError. By default this is done with files that
                    Thirteen did not write, once; True does it with all files, False with none.
                The profile has the defaults of context, slots, batch, kv, prefix_bytes,
                flash_attention, micro_batch and gpu_layers. What it leaves open is measured by the first
                engine for a processor and a model's shape, in about three seconds.

        Raises:
            ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build, or it ended the
                other process.
            AdapterError: an adapter does not fit the model.
            InsufficientMemoryError: the model does not fit in memory; nothing was loaded.
            RequestError: a number is out of range, a name is unknown or reserved, or there is no GPU for
                gpu_layers; nothing was loaded.
        """
        config = EngineConfig.from_options(**options)
        with ExitStack() as handles:
            model, profile = _load_model(Path(path), config)
            self.model = handles.enter_context(model)
            template = read_chat_template(self.model.header, self.model.bos, self.model.eos)
            if template:
                handles.callback(template.close)
            settings = choose_settings(profile, config.threads, self.model)
            self.profile = replace(
                profile,
                kv=settings.kv,
                flash_attention=settings.flash_attention,
                micro_batch=settings.micro_batch,
            )
            self._adapters: dict[str, LoraAdapter | None] = {BASE: None}
            handles.callback(self._close_adapters)
            for name, file in config.adapters.items():
                self._adapters[name] = LoraAdapter(self.model, file)
            self.context = min(self.profile.context, self.model.context_trained)
            self._params = replace(config.params, context=self.context, **asdict(settings))
            self._prefixes = _open_prefix_cache(self.model, self.profile, config)
            self._runner = Runner(self._make_context(), self._adapters, self._prefixes)
            handles.callback(self._runner.close)
            if template:
                template.compile()  # in its process, which has started meanwhile
            self._encoder = PromptEncoder(self.model, template, self.model.max_bytes(self.context))
            self._handles = handles.pop_all()
        self._default_adapter, self.queue = config.default_adapter, config.queue
        self._dispatcher = Dispatcher(self.model, self._runner, slots=self.profile.slots, queue=config.queue)
        self._scoring, self._closing = Lock(), Lock()
        self._fork = ForkCheck()

    def _make_context(self) -> Context:
        return Context(self.model, self._params)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a request can choose from."""
        return tuple(self._adapters)

    def files(self, adapter: str) -> tuple[Path, ...]:
        """Files that requests for an adapter use: the model's, and the adapter's if there is one."""
        lora = self._adapters[adapter]
        return (self.model.header.path, *([lora.path] if lora else []))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def chat_template(self) -> str:
        """The model's chat template, in Jinja; empty if it has none."""
        return self._encoder.template_source

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template tells the model of tools; see conversation()."""
        return self._encoder.takes_tools

    @property
    def load(self) -> EngineLoad:
        """How many requests run and wait now."""
        return self._dispatcher.load

    @property
    def closed(self) -> bool:
        """Whether no more requests are accepted, after close() or an unexpected error."""
        return self._dispatcher.closed

    def close(self) -> None:
        """Abort all requests and free the model; a second call does nothing.

        In the child of a fork it does nothing either: the model is the parent's.
        """
        if not self._fork.forked:
            run_uninterrupted(self._close)

    def _close(self) -> None:
        with self._closing:
            self._dispatcher.close()
            self._handles.close()

    def submit(self, request: Request, *, wait: bool = False) -> Handle:
        """Submit a request; see submit_all()."""
        return self.submit_all([request], wait=wait)[0]

    def submit_all(self, requests: Sequence[Request], *, wait: bool = False) -> list[Handle]:
        """Submit requests, all or none of them; they start together if there are enough free slots.

        Args:
            requests: what to answer.
            wait: whether to wait while the queue is full, instead of raising BusyError.

        Returns:
            A handle of each request, in their order.

        Raises:
            RequestError: a prompt is longer than the context or has an unknown token, an adapter's name is
                unknown, a grammar cannot be compiled, or the engine is closed.
            BusyError: the queue is full.
        """
        return self._dispatcher.submit([self._new_sequence(request) for request in requests], wait=wait)

    def request(  # noqa: PLR0913 - the documented options of a question
        self,
        question: str,
        *,
        system: str | None = None,
        sampling: Sampling = _GREEDY,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        calculator: bool = True,
        grammar: "Grammar | None" = None,
        adapter: str | None = None,
        namespace: str = "",
    ) -> Request:
        """Make the request that asks a question.

        Args:
            question: no text in it acts as a control token.
            system: system prompt.
            sampling: greedy by default.
            max_tokens: maximum tokens of the answer.
            stop: strings that end the answer, and are not part of it.
            calculator: whether arithmetic in the answer, such as "12 * 13 =", is completed with its exact
                result instead of the model's tokens.
            grammar: constrains the answer, from grammar.from_schema(), from_lark() or from_regex(); turns
                the calculator off. The answer is cut short if max_tokens are used up.
            adapter: a name of the engine's adapters, or "base" for none; by default the engine's own adapter.
            namespace: namespace of the prefix cache: nobody else learns whether the prompt was asked before.

        Raises:
            RequestError: the question is empty, or the chat template rejects it.
        """
        with self._dispatcher.in_use():
            tokens = self._encoder.encode_question(question, system)
            foreign = self.model.foreign_share(question)
        return Request(
            tokens,
            max_tokens,
            sampling,
            stop=stop,
            calculator=calculator,
            grammar=grammar,
            adapter=adapter,
            foreign_share=foreign,
            namespace=namespace,
        )

    def conversation(self, messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> tuple[int, ...]:
        """Encode a conversation as a prompt (see Request) for the model's next message.

        Args:
            messages: what was said so far.
            tools: what the model may call, each in the form of OpenAI's API.

        Raises:
            RequestError: all messages are empty, or the chat template takes no tools or rejects them.
        """
        with self._dispatcher.in_use():
            return self._encoder.encode_conversation(messages, tools)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text as a prompt (see Request) without the chat template, for the model to continue.

        Raises:
            RequestError: the text is too long.
        """
        with self._dispatcher.in_use():
            return self._encoder.encode_text(text)

    def answer(self, question: str, **options: Unpack[RequestOptions]) -> Answer:
        """Ask a question and wait for the answer; see request() and submit_all() for options and errors."""
        (answer,) = self.answers([question], **options)
        return answer

    def answers(self, questions: Sequence[str], **options: Unpack[RequestOptions]) -> list[Answer]:
        """Ask several questions at once; the answers are in the order of the questions."""
        requests = [self.request(question, **options) for question in questions]
        handles = self.submit_all(requests, wait=True)
        try:
            return [handle.answer() for handle in handles]
        finally:
            for handle in handles:
                handle.abort()

    def poll(self, question: str, votes: int, **options: Unpack[RequestOptions]) -> MajorityVote:
        """Sample several answers to a question until the majority value is certain (self-consistency).

        Args:
            question: the question.
            votes: number of answers, from 1 to 64, each with its own seed.
            options: see request(). Greedy sampling, which would repeat one answer, is replaced by a
                temperature of 0.7.

        Raises:
            RequestError: request() or submit() raises it, or `votes` is out of range.
            BusyError: the queue has no room for so many.
        """
        return MajorityVote(self.submit_all(vote_requests(self.request(question, **options), votes)))

    def stream(self, question: str, **options: Unpack[RequestOptions]) -> Iterator[Piece]:
        """Ask a question and yield the text as it is generated; the last piece carries the answer."""
        yield from self.submit(self.request(question, **options), wait=True)

    def clear_prefix_cache(self, *, keep: Sequence[int] = ()) -> None:
        """Remove all prefixes but one from memory.

        The last bits of a KV cache depend on the batches in which it was computed. A measurement that must
        repeat therefore starts each part with the same prefix.

        Args:
            keep: tokens of a prefix that was computed under the engine's own adapter.

        Raises:
            RequestError: the engine is closed.
        """
        with self._dispatcher.in_use():
            COMPUTE_THREAD.call(partial(self._runner.clear_prefixes, self._default_adapter, tuple(keep)))

    def check_request(self, request: Request) -> None:
        """Raise RequestError if the request can never run on this engine; see submit_all()."""
        self._new_sequence(request)

    def swap(self, name: str, path: str | Path, *, untrusted: bool | None = None) -> None:
        """Load an adapter under a name, replacing the one that has the name.

        Args:
            name: the name that requests give.
            path: a LoRA in a GGUF file.
            untrusted: whether to load it in another process first; see Engine().

        Raises:
            ModelFileError: the file is not a GGUF, is damaged, or ended the other process.
            AdapterError: the adapter does not fit the model.
            RequestError: requests are running, the engine is closed, or an adapter has the name and there is
                a prefix cache, whose entries would outlive the adapter under which they were computed.
        """
        self._check_swap(name)
        probe_model_files(self.model.header.path, [Path(path)], untrusted=untrusted)
        with self._dispatcher.in_use(), self._scoring, ExitStack() as handles:
            self._check_swap(name)  # another thread may have taken the name
            adapter = handles.enter_context(LoraAdapter(self.model, Path(path)))

            def register() -> LoraAdapter | None:
                old = self._runner.swap_adapter(name, adapter)
                handles.pop_all()  # here, as an interruption of call() is raised after it
                return old

            if old := COMPUTE_THREAD.call(register):
                old.close()

    def _check_swap(self, name: str) -> None:
        if name == BASE:
            raise RequestError(f"swap: {BASE!r} is the model without an adapter")
        if self.profile.prefix_bytes and name in self._adapters:
            raise RequestError(f"swap: {name!r} is taken; with a prefix cache the name must be new")

    def log_likelihoods(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], adapter: str | None = None
    ) -> list[tuple[float, ...]]:
        """Compute how likely the model finds given continuations, many at once.

        Args:
            pairs: tokens of the prompt, and tokens of the continuation.
            adapter: name of an adapter; by default the engine's own.

        Returns:
            For each pair the log-probability of each token of the continuation, in nats.

        Raises:
            RequestError: a part is empty, too long or has an unknown token, the adapter's name is unknown, or
                the engine is closed.
            ModelFileError: the computation failed.
        """
        name = self._adapter_name(adapter)
        with self._dispatcher.in_use(), self._scoring:
            scores = self._scorer.score(pairs, self._adapters[name])
        return [tuple(token.logprob for token in score) for score in scores]

    def prompt_logprobs(
        self, tokens: Sequence[int], top: int = 0, adapter: str | None = None
    ) -> tuple[TokenLogprob, ...]:
        """Compute how likely the model finds each token of a prompt after those before it.

        The first call allocates the memory of one more slot.

        Args:
            tokens: the prompt.
            top: number of likeliest tokens to report beside each token.
            adapter: name of an adapter; by default the engine's own.

        Returns:
            The log-probabilities of all tokens but the first.

        Raises:
            RequestError: the prompt is longer than the context or has an unknown token, the adapter's name is
                unknown, or the engine is closed.
            ModelFileError: the computation failed.
        """
        self._check_prompt(tokens)
        name = self._adapter_name(adapter)
        if len(tokens) < 2:
            return ()
        with self._dispatcher.in_use(), self._scoring:
            (score,) = self._prompt_scorer.score([(tokens[:1], tokens[1:])], self._adapters[name], top)
        return score

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Compute the logits after each token exactly, with a KV cache and attention in float32.

        Layers on a GPU round their products as the GPU does.

        Returns:
            Logits, (tokens, vocab).

        Raises:
            RequestError: there are no tokens, more than fit the context, or unknown ones, or the engine is
                closed.
        """
        with self._dispatcher.in_use(), self._scoring:
            return compute_logits(self._exact_context, tokens, self._adapters[self._default_adapter])

    @cached_property
    def _scorer(self) -> ContinuationScorer:
        context = Context(self.model, continuation_params(self._params))
        return ContinuationScorer(self._handles.enter_context(context))

    @cached_property
    def _prompt_scorer(self) -> ContinuationScorer:
        context = Context(self.model, continuation_params(replace(self._params, slots=1)))
        return ContinuationScorer(self._handles.enter_context(context))

    @cached_property
    def _exact_context(self) -> Context:
        return self._handles.enter_context(Context(self.model, exact_params(self._params)))

    @cached_property
    def _common_prefix(self) -> tuple[int, ...]:
        """Tokens with which every question begins: the chat template's own."""
        try:
            with self._dispatcher.in_use():
                one, other = (self._encoder.encode_question(question) for question in ("0", "A"))
        except RequestError:  # the template rejects such questions
            return ()
        return one[: common_length(one, other)]

    def _check_prompt(self, tokens: Sequence[int]) -> None:
        self.model.check_tokens(tokens)
        if len(tokens) > self.context:
            raise PromptLengthError(
                f"the prompt has {len(tokens)} tokens, but the context holds {self.context} "
                f"(the model was trained for {self.model.context_trained})"
            )

    def _new_sequence(self, request: Request) -> SequenceState:
        self._check_prompt(request.tokens)
        adapter = self._adapter_name(request.adapter)
        if request.namespace and self._prefixes:
            self._prefixes.shared = self._common_prefix
        return SequenceState(request, self.context, adapter, submitted_at=perf_counter())

    def _adapter_name(self, adapter: str | None) -> str:
        name = self._default_adapter if adapter is None else adapter
        if name not in self._adapters:
            raise RequestError(f"adapter: {name!r} is not one of {', '.join(self.adapters)}")
        return name

    def _close_adapters(self) -> None:
        for adapter in self._adapters.values():
            if adapter:
                adapter.close()


def _load_model(path: Path, config: EngineConfig) -> tuple[Model, Profile]:
    """Load the model; the profile gets what takes less memory if that is short."""
    profile, threads = config.profile, config.params.threads

    def check(header: Header) -> None:
        nonlocal profile
        profile = limit_settings(profile, header, threads)
        check_memory(header, profile, threads)
        probe_model_files(path, config.adapters.values(), untrusted=config.untrusted)

    model = Model(path, repack=profile.repack, gpu_layers=profile.gpu_layers, check_header=check)
    return model, profile


def _open_prefix_cache(model: Model, profile: Profile, config: EngineConfig) -> PrefixCache | None:
    if not profile.prefix_bytes:
        return None
    folders = {}
    if config.prefix_folder:
        folders = prefix_folders(config.prefix_folder, model.header.path, config.adapters, profile)
    return PrefixCache(profile.prefix_bytes, folders)
