"""The engine: one model that answers many requests at once, from any thread."""

import asyncio
from _thread import start_new_thread
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self
from warnings import warn
from weakref import finalize

import numpy as np

from ...errors import ClosedError, PromptLengthError, RequestError
from ...files.received_files import PROMPT_KEY
from .. import compute
from ..answer import Answer, TokenLogprob, find_calibration, grade
from ..engine_options import EngineOptions
from ..llama.context import Context
from ..llama.model import LoraAdapter, Model
from ..options import BASE, DEFAULT_ADAPTER, MAX_TOKENS, Effort, Options, Request, check_type
from ..plan import EnginePlan
from ..prompt.chat_template import REPRODUCIBLE_DATE, THINKING_MAX_TOKENS, JsonObject, read_chat_template
from ..prompt.prompt_encoder import COMPLETION_STOP, Message, PromptEncoder, with_worked_examples
from ..prompt.question_prompt import PLAIN, QuestionPrompt
from .dispatcher import Dispatcher
from .handle import Grade, Handle
from .prefix_cache import PrefixCache
from .runner import Runner
from .scheduler import SequenceState

if TYPE_CHECKING:
    from ...stats import Floats
    from ..llama.embedding_context import EmbeddingContext, Text

NO_TEMPLATE = "the model has no chat template: it continues worked examples with the question"
ONLY_EMBEDS = (
    "the model is made for embeddings (/v1/embeddings, /api/embed, Engine.embed()) and answers nothing; "
    "take one that continues texts, of those that `thirteen models` lists"
)
NO_EMBEDDINGS = (
    "the model is not made for embeddings; take a GGUF of one that is, such as nomic-embed-text-v1.5, "
    "Qwen3-Embedding-0.6B or embeddinggemma-300m"
)

_PROMPT_ROWS, _LOGITS_ROWS = 128, 64  # rows of logits at once, each as wide as the vocabulary

FindFiles = Callable[[str | Path | None, EngineOptions], tuple[Path, EngineOptions]]


class EngineLoad(NamedTuple):
    """How many requests have a slot, and how many wait for one."""

    running: int
    waiting: int


class Engine:
    """A model that answers many requests at once, from any thread; see __init__() for the options.

    The keywords of request(), answer(), answers() and stream() are fields of Options, which may also be given
    as a whole; keywords then replace single fields.

    Attributes:
        context: maximum tokens per request, prompt and answer together.
        adapters: names that a request can choose from.
        chat_template: the model's chat template, in Jinja; empty if it has none.
        takes_tools: whether the chat template tells the model of tools; see chat().
        thinks: whether the model can think before it answers, by its chat template.
        notice: a line for the user about how answers are made; empty for a model with a chat template.
        default_effort: medium where the four answers that it samples at once run at once, else low.
        default_max_tokens: maximum tokens of an answer and its thought where a request has no number.
    """

    _embedding: "EmbeddingContext | None" = None
    find_files: ClassVar[FindFiles] = lambda model, options: (Path(model or ""), options)

    def __init__(self, model: EnginePlan | str | Path | None = None, **options: Any) -> None:
        """Load a model: a GGUF file, or a plan; `thirteen.Engine` also takes names.

        The options are fields of EngineOptions; a plan takes none. What EnginePlan.make() raises comes before
        anything is loaded. FileError: an adapter is no GGUF, is damaged, or does not fit the model.
        """
        self.plan = plan = _plan(model, options)
        settings, self.context = plan.settings, plan.settings.context
        with ExitStack() as owned:
            loaded = Model(
                plan.header, repack=settings.repack, gpu_layers=settings.gpu_layers, library=settings.library
            )
            self.model = owned.enter_context(loaded)
            date = REPRODUCIBLE_DATE if settings.reproducible else None
            template = read_chat_template(self.model, date)
            self._adapters: dict[str, LoraAdapter | None] = {BASE: None}
            for name, path in plan.adapters.items():
                self._adapters[name] = owned.enter_context(LoraAdapter(self.model, path))
            self._prefixes = PrefixCache(settings.prefix_bytes, cuts=self.model.cuts_states)
            if plan.embeds:
                from ..llama.embedding_context import EmbeddingContext  # noqa: PLC0415 - few models embed

                self._embedding = EmbeddingContext(self.model, settings)
            context = owned.enter_context(self._embedding or Context(self.model, settings))
            self._runner = Runner(context, self._adapters, self._prefixes)
            bytes_max = self.model.max_bytes(self.context)
            self._encoder = PromptEncoder(
                self.model, template, bytes_max, plan.context_hint, self.context // 2
            )
            self._owned = owned.pop_all()
        self._dispatcher = Dispatcher(
            self.model, self._runner, slots=settings.slots, queue=plan.queue, thinking=self._encoder.thinking
        )
        self.adapters, self.chat_template = tuple(self._adapters), self._encoder.template_source
        self.takes_tools, self.thinks = self._encoder.takes_tools, self._encoder.thinking is not None
        self.notice = "" if self.chat_template or plan.embeds else NO_TEMPLATE
        votes_at_once = settings.slots >= Effort.MEDIUM.rule.width
        self.default_effort = Effort.MEDIUM if votes_at_once else Effort.LOW
        self.default_max_tokens = THINKING_MAX_TOKENS if self.thinks else MAX_TOKENS
        self._closing, self._scoring_lock = Lock(), Lock()
        self._finalizer = finalize(self, _close_dropped, self._dispatcher, self._owned, plan.header.path)
        self._finalizer.atexit = False  # the process frees everything

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Abort all requests and free the model; a second call does nothing."""
        self._finalizer.detach()
        with self._closing:
            _free(self._dispatcher, self._owned)

    @property
    def closed(self) -> bool:
        """Whether no more requests are accepted, after close() or an unexpected error."""
        return self._dispatcher.closed

    @property
    def load(self) -> EngineLoad:
        """How many requests run and wait now."""
        scheduler = self._runner.scheduler
        return EngineLoad(len(scheduler.running), len(scheduler.waiting))

    def files(self, adapter: str) -> tuple[Path, ...]:
        """Files that requests for an adapter use: the model's, and the adapter's if there is one."""
        lora = self._adapters[adapter]
        return (self.model.header.path, *([lora.path] if lora else []))

    def request(self, question: str, options: Options | None = None, **changes: Any) -> Request:
        """Make the request that asks a question; no text in it acts as a control token."""
        check_type("question", question, str)
        if not question.strip():
            raise RequestError("the question is empty")
        options = _options(options, changes)
        prompt = options.prompt or self._adapter_prompt(options.adapter)
        if options.thinks is None:
            options = replace(options, think=prompt.think)
        messages = prompt.messages(question, options.system)
        return self._ask(messages, replace(options, prompt=prompt), (), question)

    def chat(
        self,
        messages: Sequence[Message],
        options: Options | None = None,
        tools: Sequence[JsonObject] = (),
        **changes: Any,
    ) -> Request:
        """Make the request for the next message of a conversation; see request().

        With tools, each in the form of OpenAI's API, nothing is voted on. Of the options, `system` and
        `prompt` have no effect. RequestError: all messages are empty, or the chat template takes no tools or
        rejects them.
        """
        for message in messages:
            check_type("messages: each", message, Message)
        question = next((one.content for one in reversed(messages) if one.role == "user"), "")
        return self._ask(messages, replace(_options(options, changes), prompt=PLAIN), tools, question)

    def _ask(
        self, messages: Sequence[Message], options: Options, tools: Sequence[JsonObject], question: str
    ) -> Request:
        think, prompt = options.thinks, options.prompt or PLAIN
        effort = options.effort.for_question("" if tools else question)
        with self._generating():
            tokens = self._encoder.encode_conversation(messages, tools, think, prompt.begin)
            examples: tuple[int, ...] = ()
            if effort.votes and prompt.is_bare:  # others have examples of their own
                examples = self._after_examples(messages, think)
        stop = options.stop if self.chat_template else (*options.stop, COMPLETION_STOP)
        options = replace(options, effort=effort, stop=stop)
        return Request(tokens, options, question, examples)

    def _after_examples(self, messages: Sequence[Message], think: bool | None) -> tuple[int, ...]:
        """The conversation after worked examples; empty where it would take more than half of the context."""
        shown = with_worked_examples(messages) if self.chat_template else messages  # else they are there
        try:
            tokens = self._encoder.encode_conversation(shown, (), think)
        except PromptLengthError:
            return ()
        return tokens if len(tokens) <= self.context // 2 else ()

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode a text as a prompt (see Request) without the chat template, for the model to continue."""
        with self._generating():
            return self._encoder.encode_text(text)

    def answer(self, question: str, options: Options | None = None, **changes: Any) -> Answer:
        """Ask a question and wait for the answer; see request() and submit_all() for options and errors."""
        (answer,) = self.answers([question], options, **changes)
        return answer

    def answers(
        self, questions: Sequence[str], options: Options | None = None, **changes: Any
    ) -> list[Answer]:
        """Ask several questions at once; the answers are in the order of the questions."""
        if isinstance(questions, str):
            raise RequestError("answers() takes several questions: give a list, or call answer()")
        options = _options(options, changes)
        with ExitStack() as aborts:
            handles = self.submit_all([self.request(one, options) for one in questions], wait=True)
            for handle in handles:
                aborts.callback(handle.abort)
            return [handle.answer() for handle in handles]

    def stream(self, question: str, options: Options | None = None, **changes: Any) -> Handle:
        """Ask a question; `for` and `async for` yield its pieces as they come, the last with the answer."""
        return self.submit(self.request(question, options, **changes), wait=True)

    def submit(self, request: Request, *, wait: bool = False) -> Handle:
        """Submit a request; see submit_all()."""
        return self.submit_all([request], wait=wait)[0]

    def submit_all(self, requests: Sequence[Request], *, wait: bool = False) -> list[Handle]:
        """Submit requests, all or none of them; they start together if there are enough free slots.

        Raises:
            RequestError: a prompt or an adapter's name is invalid, a grammar cannot be compiled, or there is
                never room for so many without waiting.
            BusyError: the queue is full, and the caller does not `wait`.
            ClosedError: the engine is closed, or this process was forked; so does every other method.
        """
        if any(request.options.effort.votes for request in requests):
            return self._submit_votes(requests, wait)
        sequences = [self._sequence(request) for request in requests]
        return self._dispatcher.submit(sequences, keep=self, wait=wait)

    def _submit_votes(self, requests: Sequence[Request], wait: bool) -> list[Handle]:
        from .majority_vote import MajorityVote  # noqa: PLC0415 - most questions have one answer

        with ExitStack() as aborts:
            handles: list[Handle] = []
            for request in requests:
                if request.options.effort.votes:
                    handles.append(MajorityVote(request, self.submit_all, wait=wait).handle)
                else:
                    handles.append(self.submit(request, wait=wait))
                aborts.callback(handles[-1].abort)
            aborts.pop_all()
        return handles

    def check_places(self) -> None:
        """Raise BusyError if the queue is full; submit_all() does so after its requests have been made."""
        self._dispatcher.check_places()

    def check_request(self, request: Request) -> None:
        """Raise RequestError if the request can never run on this engine; see submit_all()."""
        self._sequence(request)

    def _sequence(self, request: Request) -> tuple[SequenceState, Grade]:
        """The state of a request, which is checked here, and the function that grades its answer."""
        options = request.options
        self._check_prompt(request.tokens)
        self.model.check_tokens(tuple(options.logit_bias))
        adapter, calibration = self._adapter_name(options.adapter), None
        if adapter == BASE and request.question and options.greedy and not options.grammar:
            calibration = find_calibration(self.model.header.metadata)
        room = self.context + 1 - len(request.tokens)  # the last token needs no place in it
        sequence = SequenceState(
            request,
            adapter,
            max_tokens=min(options.max_tokens or self.default_max_tokens, room),
            scored=options.logprobs is not None or calibration is not None,
            submitted_at=perf_counter(),
        )
        return sequence, partial(grade, request, calibration)

    def _check_prompt(self, tokens: Sequence[int]) -> None:
        self.check_answers()
        if not tokens:
            raise RequestError("the prompt is empty")
        self.model.check_tokens(tokens)
        if len(tokens) > self.context:
            raise PromptLengthError(
                f"the prompt has {len(tokens)} tokens, but the context holds {self.context}; "
                f"{self.plan.context_hint}"
            )

    def _adapter_name(self, name: str | None) -> str:
        if name is None:
            return DEFAULT_ADAPTER if DEFAULT_ADAPTER in self._adapters else BASE
        if name not in self._adapters:
            raise RequestError(f"adapter: {name!r} is not one of {', '.join(self._adapters)}")
        return name

    def _adapter_prompt(self, name: str | None) -> QuestionPrompt:
        adapter = self._adapters[self._adapter_name(name)]
        if adapter is None:
            return PLAIN
        return QuestionPrompt.parse(str(adapter.metadata.get(PROMPT_KEY, "")), str(adapter.path))

    def clear_prefix_cache(self) -> None:
        """Remove all prefixes from memory.

        The last bits of a KV cache depend on the batches in which it was computed: a measurement that must
        repeat starts each part without any.
        """
        with self._dispatcher.in_use():
            compute.call(self._prefixes.clear)

    def check_answers(self) -> None:
        """Raise RequestError if the model makes embeddings, and answers nothing."""
        if self.plan.embeds:
            raise RequestError(f"{self.plan.header.path.name}: {ONLY_EMBEDS}")

    def prompt_logprobs(
        self, tokens: Sequence[int], top: int = 0, adapter: str | None = None
    ) -> list[TokenLogprob]:
        """Log-probabilities of all tokens of a prompt but the first, each with the `top` likeliest.

        The first call allocates the memory of one more slot.
        """
        self._check_prompt(tokens)
        lora = self._adapters[self._adapter_name(adapter)]
        with self._dispatcher.in_use(), self._scoring_lock:
            context = self._scoring_context
            context.set_adapter(lora)
            scored = zip(context.decode_text(tokens[:-1]), tokens[1:], strict=True)
            return [context.logprob(row, token, top) for row, token in scored]

    def logits(self, tokens: Sequence[int]) -> "Floats":
        """Logits after each token, (tokens, vocab), with a KV cache and attention in float32.

        They are exact with library="llama.cpp" and without GPU layers; others round their products.
        """
        self._check_prompt(tokens)
        with self._dispatcher.in_use(), self._scoring_lock:
            context = self._exact_context
            context.set_adapter(self._adapters[self._adapter_name(None)])
            logits = np.empty((len(tokens), self.model.vocabulary_size), np.float32)
            for place, row in enumerate(context.decode_text(tokens)):
                logits[place] = context.logits_row(row)
            return logits

    @cached_property
    def _scoring_context(self) -> Context:
        settings = self.plan.settings
        one_text = replace(settings, slots=1, outputs=min(_PROMPT_ROWS, settings.batch))
        return self._owned.enter_context(Context(self.model, one_text))

    @cached_property
    def _exact_context(self) -> Context:
        rows = min(_LOGITS_ROWS, self.context)
        one_text = replace(self.plan.settings, slots=1, batch=rows, outputs=rows)
        exact = replace(one_text, exact=True, adaptive_threads=False)
        return self._owned.enter_context(Context(self.model, exact))

    def embedding_tokens(self, texts: "Sequence[Text]", *, truncate: bool = False) -> list[tuple[int, ...]]:
        """Tokens of texts as embed() takes them, with those that the tokenizer puts around a text.

        With `truncate`, a text that is longer than the context is cut. RequestError: the model makes no
        embeddings; a text is empty, too long (PromptLengthError), or has an unknown token.
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
        """Embeddings of texts or of their tokens, (texts, dimensions), float32, each with a length of 1.

        The vectors are pooled as the file says (`pooling_type`); the first `dimensions` numbers are kept, by
        default all. For `truncate` and errors, see embedding_tokens().
        """
        tokens = self.embedding_tokens(texts, truncate=truncate)
        lora = self._adapters[self._adapter_name(adapter)]
        with self._dispatcher.in_use(), self._scoring_lock:
            self._embeddings.set_adapter(lora)
            return self._embeddings.embed(tokens, dimensions)

    @property
    def _embeddings(self) -> "EmbeddingContext":
        if self._embedding is None:
            raise RequestError(f"{self.plan.header.path.name}: {NO_EMBEDDINGS}")
        return self._embedding

    def _generating(self) -> AbstractContextManager[None]:
        """Keep the model open while a thread uses it to continue texts."""
        self.check_answers()
        return self._dispatcher.in_use()


def _plan(model: EnginePlan | str | Path | None, options: Mapping[str, Any]) -> EnginePlan:
    if not isinstance(model, EnginePlan):
        return EnginePlan.make(*Engine.find_files(model, EngineOptions(**options)))
    if options:
        raise TypeError(f"Engine() takes no {min(options)!r} beside a plan")
    return model


def _options(options: Options | None, changes: Mapping[str, Any]) -> Options:
    return replace(options, **changes) if options else Options(**changes)


def _free(dispatcher: Dispatcher, owned: ExitStack) -> None:
    dispatcher.close()
    with suppress(ClosedError):  # the process is ending and frees everything, or the parent owns it
        compute.call(owned.close)  # as a whole: an interrupt comes before or behind it


def _close_dropped(dispatcher: Dispatcher, owned: ExitStack, path: Path) -> None:
    """Free what a dropped engine owned, in a new thread that takes no lock: the caller's may hold any."""
    start_new_thread(_free, (dispatcher, owned))
    warn(f"unclosed engine of {path}: use `with`, or call close()", ResourceWarning, stacklevel=2)
