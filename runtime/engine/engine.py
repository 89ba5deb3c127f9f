"""The engine: one model that answers many requests at once, from any thread."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack
from warnings import warn
from weakref import finalize

from ...errors import PromptLengthError, RequestError
from ..answer import Answer
from ..confidence import find_calibration
from ..effort import Effort, EffortName, default_effort, parse_effort
from ..forks import ForkCheck
from ..llama.context import Context
from ..llama.load_probe import probe_model_files
from ..llama.model import LoraAdapter, Model
from ..native.compute_thread import COMPUTE_THREAD, run_uninterrupted
from ..native.settings import LIBRARIES
from ..plan.options import EngineOptions
from ..plan.plan import EnginePlan
from ..prompt.prompt_encoder import JsonObject, Message, PromptEncoder, question_messages
from ..prompt.question_prompt import QuestionPrompt
from ..prompt.template_process import REPRODUCIBLE_DATE, TemplateProcess, TemplateWorker, read_chat_template
from ..prompt.thinking import MAX_TOKENS as THINKING_MAX_TOKENS
from ..prompt.thinking import resolve_thinking
from ..request import (
    BASE,
    DEFAULT_ADAPTER,
    LOGPROBS_MAX,
    MAX_TOKENS,
    Request,
    Sampling,
    SamplingOptions,
    SequenceState,
    TokenLogprob,
)
from ..validation import check_integer, check_type
from .adapters import Adapters
from .dispatcher import Dispatcher, EngineLoad
from .handle import Handle
from .prefix_cache import PREFIX_TOKENS_MIN, PrefixCache, common_length
from .runner import Runner

if TYPE_CHECKING:  # see request.py
    from ...stats.arrays import Floats
    from ..grammar.grammar import Grammar
    from .embedding import Embedder, Text
    from .scoring import Scoring


class RequestOptions(SamplingOptions, total=False):
    """Keywords of Engine.request(), which documents them."""

    system: str | None
    sampling: Sampling
    max_tokens: int | None
    stop: Sequence[str]
    calculator: bool
    grammar: "Grammar | None"
    adapter: str | None
    namespace: str
    turn: str
    effort: Effort | EffortName
    min_confidence: float
    think: bool | None
    think_budget: int | None
    prompt: QuestionPrompt | None


NO_TEMPLATE = "the model has no chat template: it continues worked examples with the question"

FindFiles = Callable[[str | Path | None, EngineOptions], tuple[Path, EngineOptions]]


class Engine:
    """A model that answers many requests at once, from any thread.

    Attributes:
        find_files: turns a model, and the adapters in the options, into files. Here they are files already;
            `thirteen.Engine` also takes names.
        plan: what is allocated, and how it is computed.
        model: the loaded model.
    """

    find_files: ClassVar[FindFiles] = lambda model, options: (Path(model or ""), options)

    def __init__(
        self,
        model: EnginePlan | str | Path | None = None,
        *,
        template_worker: TemplateWorker | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        """Load a model.

        Args:
            model: a plan, or a GGUF file, of which one is made; `thirteen.Engine()` is the model that
                `thirteen ask` uses.
            template_worker: renders the chat template, and is closed with the engine; by default a new one.
            options: see EngineOptions; a plan takes none.

        Raises:
            ThirteenError: EnginePlan.make() raises it; nothing was loaded.
            FileError: an adapter is no GGUF, is damaged, or does not fit the model.
        """
        self.plan = plan = _plan(model, options)
        settings = plan.settings
        with ExitStack() as handles:
            self.model = handles.enter_context(_load_model(plan))
            template = self._start_template(handles, template_worker)
            self._adapters = handles.enter_context(closing(Adapters.load(self.model, plan.adapters)))
            cuts, nbytes = self.model.cuts_states, settings.prefix_bytes
            self._prefixes = PrefixCache(nbytes, cuts=cuts) if nbytes else None
            context, self._embedder = self._start_context(plan)
            runner = Runner(context, self._adapters, self._prefixes)
            self._runner = handles.enter_context(closing(runner))
            if template:
                template.compile()  # in its process, which has started meanwhile
            bytes_max = self.model.max_bytes(self.context)
            half = self.context // 2
            self._encoder = PromptEncoder(self.model, template, bytes_max, plan.context_hint, half)
            self._handles = handles.pop_all()
        slots, thinking = settings.slots, self._encoder.thinking
        self._dispatcher = Dispatcher(
            self.model, self._runner, slots=slots, queue=plan.queue, thinking=thinking
        )
        self._closing, self._scoring_lock, self._fork = Lock(), Lock(), ForkCheck()
        self._finalizer = finalize(
            self, _close_dropped, self._dispatcher, self._handles, self._fork, plan.header.path
        )
        self._finalizer.atexit = False  # the process frees everything

    def _start_context(self, plan: EnginePlan) -> "tuple[Context, Embedder | None]":
        if not plan.embeds:
            return Context(self.model, plan.settings), None
        from ..llama.embedding_context import EmbeddingContext  # noqa: PLC0415 - few models embed
        from .embedding import Embedder  # noqa: PLC0415

        context = EmbeddingContext(self.model, plan.settings)
        return context, Embedder(context, plan.context_hint)

    def _start_template(self, handles: ExitStack, worker: TemplateWorker | None) -> TemplateProcess | None:
        date = REPRODUCIBLE_DATE if self.plan.settings.reproducible else None
        template = read_chat_template(self.model.header, self.model.bos, self.model.eos, date, worker)
        if template:
            handles.callback(template.close)
        return template

    @cached_property
    def _scoring(self) -> "Scoring":
        """Contexts beside that of the requests, used under their lock."""
        from .scoring import Scoring  # noqa: PLC0415 - few engines score

        return self._handles.enter_context(closing(Scoring(self.model, self.plan.settings, self._adapters)))

    @property
    def context(self) -> int:
        """Maximum tokens per request, prompt and answer together."""
        return self.plan.settings.context

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a request can choose from."""
        return tuple(self._adapters)

    @cached_property
    def default_effort(self) -> Effort:
        """Medium where that takes less than twice as long as low, by what was measured."""
        return default_effort(self.plan.parallel_cost)

    def files(self, adapter: str) -> tuple[Path, ...]:
        """Files that requests for an adapter use: the model's, and the adapter's if there is one."""
        lora = self._adapters[adapter]
        return (self.model.header.path, *([lora.path] if lora else []))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    @property
    def chat_template(self) -> str:
        """The model's chat template, in Jinja; empty if it has none."""
        return self._encoder.template_source

    @property
    def notice(self) -> str:
        """A line for the user about how answers are made; empty for a model with a chat template."""
        return "" if self.chat_template or self._embedder else NO_TEMPLATE

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template tells the model of tools; see conversation()."""
        return self._encoder.takes_tools

    @property
    def thinks(self) -> bool:
        """Whether the model can think before it answers, by its chat template."""
        return self._encoder.thinking is not None

    @property
    def default_max_tokens(self) -> int:
        """Maximum tokens of an answer and its thought where a request has no number of its own."""
        return THINKING_MAX_TOKENS if self.thinks else MAX_TOKENS

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
        self._finalizer.detach()
        if not self._fork.forked:
            run_uninterrupted(self._close)

    def _close(self) -> None:
        with self._closing:
            _free(self._dispatcher, self._handles)

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
                unknown, a grammar cannot be compiled, or there is never room for so many without waiting.
            BusyError: the queue is full.
            ClosedError: the engine is closed; so does every other method that uses the model.
        """
        requests = [self._completion(self._calibrated(request)) for request in requests]
        if any(request.effort.votes for request in requests):
            return self._submit_votes(requests, wait)
        handles = self._dispatcher.submit([self._new_sequence(request) for request in requests], wait=wait)
        for handle in handles:
            handle.call_at_end(self._keep)
        return handles

    def _keep(self, _: Handle) -> None:
        """Called at the end of a request, which keeps the engine until then, even if nothing else does."""

    def _submit_votes(self, requests: Sequence[Request], wait: bool) -> list[Handle]:
        from .majority_vote import MajorityVote  # noqa: PLC0415 - most questions have one answer

        with ExitStack() as aborts:
            handles: list[Handle] = []
            for request in requests:
                if request.effort.votes:
                    handles.append(MajorityVote(request, self.submit_all, wait=wait).handle)
                else:
                    handles.append(self.submit(request, wait=wait))
                aborts.callback(handles[-1].abort)
            aborts.pop_all()
        return handles

    def request(self, question: str, **options: Unpack[RequestOptions]) -> Request:
        """Make the request that asks a question.

        Args:
            question: no text in it acts as a control token.
            options: keyword arguments, each optional:
                system: system prompt.
                sampling: greedy by default.
                max_tokens: maximum tokens of the answer and its thought; by default 512, and 2,048 of a model
                    that thinks.
                stop: strings that end the answer, and are not part of it.
                calculator: whether arithmetic in the answer, such as "12 * 13 =", is completed with its exact
                    result instead of the model's tokens, as it is by default.
                grammar: constrains the answer, from grammar.from_schema(), from_lark() or from_regex();
                    turns the calculator off. The answer is cut short if max_tokens are used up.
                adapter: a name of the engine's adapters, or "base" for none; by default the engine's own.
                namespace: namespace of the prefix cache: nobody else learns whether the prompt was asked
                    before.
                turn: requests of the same name share the slots with those of others; by default the
                    namespace.
                effort: with "medium" or "high", up to 8 or 10 answers are sampled to a question that has a
                    number, until their majority is certain; "low" by default. See effort.py.
                min_confidence: confidence below which the answer has no value; see answer.py.
                think: whether a model that can think before it answers does so; by default as the prompt
                    or the chat template has it. Other models never do.
                think_budget: tokens after which its thought is ended; see Request. 0 is no thought.
                prompt: what stands around the question; by default what the adapter was learned with.
                Others, such as temperature=0.5, replace a parameter of `sampling`.

        Raises:
            RequestError: a value is invalid, the question is empty, or the chat template rejects it.
        """
        check_type("question", question, str)
        fields: dict[str, Any] = {"calculator": True, **options}
        if (system := fields.pop("system", None)) is not None:
            check_type("system", system, str)
        check_type("sampling", sampling := fields.pop("sampling", Sampling()), Sampling)
        changes = {name: fields.pop(name) for name in SamplingOptions.__annotations__ if name in fields}
        effort = parse_effort(fields.get("effort", Effort.LOW)).for_question(question)
        fields["effort"] = effort
        if fields.get("max_tokens") is None:
            fields["max_tokens"] = self.default_max_tokens
        prompt = fields.pop("prompt", None) or self._adapters.prompt(fields.get("adapter"))
        check_type("prompt", prompt, QuestionPrompt)
        budget = fields.get("think_budget")
        if (think := fields.pop("think", None)) is None and budget is None:
            think = prompt.think
        think, fields["think_budget"] = resolve_thinking(think, budget)
        with self._generating():
            tokens = self._encoder.encode_question(question, system, think, prompt)
            if effort.votes and prompt.is_bare:  # others have examples of their own
                fields["examples"] = self.after_examples(question_messages(question, system), think)
            foreign = self.model.foreign_share(question)
            fields["sampling"] = replace(sampling, **changes)
            return Request(tokens, question=question, foreign_share=foreign, **fields)

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[JsonObject] = (), think: bool | None = None
    ) -> tuple[int, ...]:
        """Encode a conversation as a prompt (see Request) for the model's next message.

        Args:
            messages: what was said so far.
            tools: what the model may call, each in the form of OpenAI's API.
            think: see request().

        Raises:
            RequestError: all messages are empty, or the chat template takes no tools or rejects them.
        """
        with self._generating():
            return self._encoder.encode_conversation(messages, tools, think)

    def after_examples(self, messages: Sequence[Message], think: bool | None = None) -> tuple[int, ...]:
        """Encode a conversation after worked examples; see Request.examples and request().

        Returns:
            The prompt; empty where it would take more than half of the context.
        """
        from ..prompt.worked_examples import with_worked_examples  # noqa: PLC0415 - of votes

        shown = with_worked_examples(messages) if self.chat_template else messages  # else they are there
        try:
            tokens = self.conversation(shown, think=think)
        except PromptLengthError:
            return ()
        return tokens if len(tokens) <= self.context // 2 else ()

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text as a prompt (see Request) without the chat template, for the model to continue.

        Raises:
            RequestError: the text is too long.
        """
        with self._generating():
            return self._encoder.encode_text(text)

    def answer(self, question: str, **options: Unpack[RequestOptions]) -> Answer:
        """Ask a question and wait for the answer; see request() and submit_all() for options and errors."""
        (answer,) = self.answers([question], **options)
        return answer

    def answers(self, questions: Sequence[str], **options: Unpack[RequestOptions]) -> list[Answer]:
        """Ask several questions at once; the answers are in the order of the questions."""
        if isinstance(questions, str):
            raise RequestError("answers() takes several questions: give a list, or call answer()")
        requests = [self.request(question, **options) for question in questions]
        with ExitStack() as aborts:
            handles = self.submit_all(requests, wait=True)
            for handle in handles:
                aborts.callback(handle.abort)
            return [handle.answer() for handle in handles]

    def stream(self, question: str, **options: Unpack[RequestOptions]) -> Handle:
        """Ask a question; `for` and `async for` yield its pieces as they come, the last with the answer."""
        return self.submit(self.request(question, **options), wait=True)

    def clear_prefix_cache(self, *, keep: Sequence[int] = ()) -> None:
        """Remove all prefixes but one from memory.

        The last bits of a KV cache depend on the batches in which it was computed. A measurement that must
        repeat therefore starts each part with the same prefix.

        Args:
            keep: tokens of a prefix that was computed under the engine's own adapter.
        """
        with self._dispatcher.in_use():
            COMPUTE_THREAD.call(partial(self._runner.clear_prefixes, self._adapters.default, tuple(keep)))

    def check_answers(self) -> None:
        """Raise RequestError if the model makes embeddings, and answers nothing."""
        if self._embedder:
            from .embedding import ONLY_EMBEDS  # noqa: PLC0415 - few models embed

            raise RequestError(f"{self.plan.header.path.name}: {ONLY_EMBEDS}")

    def check_request(self, request: Request) -> None:
        """Raise RequestError if the request can never run on this engine; see submit_all()."""
        self._new_sequence(request)

    def swap(self, name: str, path: str | Path, *, untrusted: bool | None = None) -> None:
        """Load an adapter under a name, replacing the one that has the name.

        Args:
            name: the name that requests give.
            path: a LoRA in a GGUF file.
            untrusted: whether to load it in another process first; see EngineOptions.

        Raises:
            FileError: the file is not a GGUF, is damaged, or ended the other process; the adapter does not
                fit the model.
            RequestError: requests are running, or an adapter has the name and there is a prefix cache, whose
                entries would outlive the adapter under which they were computed.
        """
        self._check_swap(name)
        probe_model_files(self.model.header.path, [Path(path)], untrusted=untrusted)
        if (settings := self.plan.settings).library != LIBRARIES[0]:
            from ..llama.library_proof import require_proof  # noqa: PLC0415 - few engines have another library

            require_proof(settings, self.model.header.path, [Path(path)])
        with self._dispatcher.in_use(), self._scoring_lock, ExitStack() as handles:
            self._check_swap(name)  # another thread may have taken the name
            adapter = handles.enter_context(LoraAdapter(self.model, Path(path)))

            def register() -> LoraAdapter | None:
                old = self._runner.swap_adapter(name, adapter)
                handles.pop_all()  # here, as an interruption of call() is raised after it
                return old

            if old := COMPUTE_THREAD.call(register):
                old.close()

    def _check_swap(self, name: str) -> None:
        if name == BASE or (name == DEFAULT_ADAPTER and name not in self._adapters):
            raise RequestError(f"swap: the name {name!r} is reserved")
        if self.plan.settings.prefix_bytes and name in self._adapters:
            raise RequestError(f"swap: {name!r} is taken; with a prefix cache the name must be new")

    def prompt_logprobs(
        self, tokens: Sequence[int], top: int = 0, adapter: str | None = None
    ) -> list[TokenLogprob]:
        """Compute how likely the model finds each token of a prompt after those before it.

        The first call allocates the memory of one more slot.

        Args:
            tokens: the prompt.
            top: number of likeliest tokens to report beside each token, at most 20.
            adapter: name of an adapter; by default the engine's own.

        Returns:
            The log-probabilities of all tokens but the first.

        Raises:
            RequestError: the prompt is too long or has an unknown token, or the adapter's name is unknown.
            FileError: the computation failed.
        """
        self._check_prompt(tokens)
        check_integer("top", top, 0, LOGPROBS_MAX)
        with self._dispatcher.in_use(), self._scoring_lock:
            return self._scoring.prompt_logprobs(tokens, top, self._adapters.resolve(adapter))

    def logits(self, tokens: Sequence[int]) -> "Floats":
        """Compute the logits after each token exactly, with a KV cache and attention in float32.

        Layers on a GPU round their products as the GPU does, and a library other than llama.cpp as it always
        does: give library="llama.cpp" for exact ones.

        Returns:
            Logits, (tokens, vocab).
        """
        self._check_prompt(tokens)
        with self._dispatcher.in_use(), self._scoring_lock:
            return self._scoring.logits(tokens, self._adapters.default)

    def embedding_tokens(self, texts: "Sequence[Text]", *, truncate: bool = False) -> list[tuple[int, ...]]:
        """Tokens of texts as embed() takes them, with those that the tokenizer puts around a text.

        Args:
            texts: texts, or tokens, to which nothing is added.
            truncate: whether a text that is longer than the context is cut, rather than refused.

        Raises:
            RequestError: the model is not made for embeddings; a text is empty, too long (PromptLengthError),
                or has an unknown token.
        """
        with self._dispatcher.in_use():
            return self._embeddings.encode(texts, truncate=truncate)

    def embed(
        self,
        texts: "Sequence[Text]",
        dimensions: int | None = None,
        *,
        truncate: bool = False,
        adapter: str | None = None,
    ) -> "Floats":
        """Make the embeddings of texts, by a model that is made for it.

        The vectors are pooled as the file says (`pooling_type`), and have a length of 1.

        Args:
            texts: see embedding_tokens().
            dimensions: numbers of each vector that are kept, the first ones; by default all.
            truncate: see embedding_tokens().
            adapter: name of an adapter; by default the engine's own.

        Returns:
            Vectors, (texts, dimensions), float32.

        Raises:
            RequestError: embedding_tokens() raises it, `dimensions` is above the model's width, or the
                adapter's name is unknown.
            FileError: the computation failed.
        """
        tokens = self.embedding_tokens(texts, truncate=truncate)
        with self._dispatcher.in_use(), self._scoring_lock:
            lora = self._adapters[self._adapters.resolve(adapter)]
            return self._embeddings.embed(tokens, dimensions, lora)

    @property
    def _embeddings(self) -> "Embedder":
        if self._embedder is None:
            from .embedding import NO_EMBEDDINGS  # noqa: PLC0415 - few models embed

            raise RequestError(f"{self.plan.header.path.name}: {NO_EMBEDDINGS}")
        return self._embedder

    @cached_property
    def _common_prefix(self) -> tuple[int, ...]:
        """Tokens with which every question begins: the chat template's own."""
        try:
            with self._generating():
                one, other = (self._encoder.encode_question(question) for question in ("0", "A"))
        except RequestError:  # the template rejects such questions
            return ()
        return one[: common_length(one, other)]

    def _calibrated(self, request: Request) -> Request:
        """Add the calibration to a question that is answered greedily by the model as it was calibrated."""
        plain = (
            request.sampling.greedy and not request.grammar and request.question and not request.effort.votes
        )
        if not plain or self._adapters.resolve(request.adapter) != BASE:
            return request
        return replace(request, calibration=find_calibration(self.model.header.metadata))

    def _completion(self, request: Request) -> Request:
        """Stop an answer after worked examples where a base would go on with a question of its own."""
        prefix = () if self.chat_template else self._common_prefix
        if len(prefix) < PREFIX_TOKENS_MIN or request.tokens[: len(prefix)] != prefix:
            return request
        from ..prompt.worked_examples import COMPLETION_STOP  # noqa: PLC0415 - of models without a template

        return replace(request, stop=(*request.stop, COMPLETION_STOP))

    def _generating(self) -> AbstractContextManager[None]:
        """Keep the model open while a thread uses it to continue texts."""
        self.check_answers()
        return self._dispatcher.in_use()

    def _check_prompt(self, tokens: Sequence[int]) -> None:
        self.check_answers()
        self.model.check_tokens(tokens)
        if len(tokens) > self.context:
            raise PromptLengthError(
                f"the prompt has {len(tokens)} tokens, but the context holds {self.context}; "
                f"{self.plan.context_hint}"
            )

    def _new_sequence(self, request: Request) -> SequenceState:
        self._check_prompt(request.tokens)
        self.model.check_tokens([*request.sampling.logit_bias])
        adapter = self._adapters.resolve(request.adapter)
        if request.namespace and self._prefixes:
            self._prefixes.shared = self._common_prefix
        return SequenceState(request, self.context, adapter, submitted_at=perf_counter())


def _load_model(plan: EnginePlan) -> Model:
    one = plan.settings
    return Model(plan.header, repack=one.repack, gpu_layers=one.gpu_layers, library=one.library)


def _free(dispatcher: Dispatcher, handles: ExitStack) -> None:
    dispatcher.close()
    handles.close()


def _close_dropped(dispatcher: Dispatcher, handles: ExitStack, fork: ForkCheck, path: Path) -> None:
    """Free what an engine had that nothing refers to any more.

    This may run in any thread and between any two instructions, also while that thread has a lock. So the
    compute thread frees, which runs as long as the model is loaded.
    """
    if not fork.forked:
        COMPUTE_THREAD.post(partial(_free, dispatcher, handles))
        warn(f"unclosed engine of {path}: use `with`, or call close()", ResourceWarning, stacklevel=2)


def _plan(model: EnginePlan | str | Path | None, options: EngineOptions) -> EnginePlan:
    if not isinstance(model, EnginePlan):
        path, options = Engine.find_files(model, options)
        return EnginePlan.make(path, **options)
    if options:
        raise TypeError(f"Engine() takes no {min(options)!r} beside a plan")
    return model
