"""OpenAI's chat and text completions, and the list of models."""

import codecs
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from time import time
from typing import Annotated, Any, ClassVar, Literal
from uuid import uuid4

from anyio import to_thread
from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ...files.gguf.pooling import read_pooling
from ...runtime.answer import Answer, Piece, StopReason, Timings, TokenLogprob, Usage
from ...runtime.engine.engine import Engine
from ...runtime.engine.handle import Handle
from ...runtime.grammar.grammar import Grammar, from_schema
from ...runtime.options import LOGPROBS_MAX, Options
from ...runtime.prompt.prompt_encoder import Message
from ...runtime.request import MAX_TOKENS
from ...runtime.request import Request as EngineRequest
from ..call import Call
from ..engine_service import collect_answers, merge_streams
from ..http_errors import HttpError, field_error
from ..streams import DONE_EVENT, event_stream, format_event
from . import fields
from .bodies import RequestBody
from .endpoints import Endpoints, InternalRequest, Operation
from .fields import Json
from .tool_calls import AnswerCall, ToolCallParser, ToolUse, parse_call

JSON_OBJECT: Json = {"type": "object"}  # the schema of any object
FINISH_REASONS = {StopReason.END: "stop", StopReason.STOP: "stop", StopReason.LENGTH: "length"}
_LOGPROB_ENTRIES_MAX = 1 << 15  # of a response; they take 3 MB of JSON and 40 ms in which nothing else runs
_FINGERPRINT = f"thirteen-{version('thirteen')}"
_LOGPROB_MIN = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity
_PROMPTS = Field(min_length=1, max_length=16, fail_fast=True)

Tokens = Annotated[
    list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(min_length=1, max_length=1 << 20, fail_fast=True)
]


class FunctionCall(RequestBody):
    """A function that the model has called."""

    name: str
    arguments: str = Field(description="A JSON object, as text.")


class MessageToolCall(RequestBody):
    """A call in a message of the model."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatMessage(RequestBody):
    """A message of a conversation."""

    refused: ClassVar[dict[str, str]] = {"audio": "send text", "function_call": "send tool_calls"}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: fields.Content | None = Field(None, description="Required, except beside tool_calls.")
    tool_calls: fields.ToolList[MessageToolCall] = Field([], description="Only for the role assistant.")
    tool_call_id: str | None = Field(None, description="Required for the role tool, and only for it.")
    reasoning_content: str | None = Field(None, description="Without effect: it is left out.")


class JsonSchemaFormat(RequestBody):
    """A JSON schema for an answer; it is always enforced."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    schema_: fields.Schema = Field(alias="schema")
    strict: bool = False


class ResponseFormat(RequestBody):
    """Format of an answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchemaFormat | None = None


class NamedFunction(RequestBody):
    """The name of a function to call."""

    name: fields.FunctionName


class FunctionChoice(RequestBody):
    """A function that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class TemplateVariables(RequestBody):
    """Variables of the chat template."""

    enable_thinking: bool | None = Field(None, description="Whether a model that can think does so.")


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: bool = False


class OpenAiRequest(fields.Sampling):
    """Fields of both bodies."""

    model: fields.ModelName = None
    n: fields.Count = Field(1, description="Number of answers.")
    stop: fields.Stop = ""
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()


class ChatRequest(OpenAiRequest, fields.Answering):
    """Body of /v1/chat/completions."""

    refused: ClassVar[dict[str, str]] = {
        "functions": "use tools",
        "function_call": "use tool_choice",
        "audio": "answers are text",
        "web_search_options": "give a function that searches as a tool",
    }

    messages: Annotated[fields.MessageList[ChatMessage], Field(min_length=1)]
    max_tokens: fields.Count | None = None
    max_completion_tokens: fields.Count | None = Field(None, description="Takes precedence over max_tokens.")
    response_format: ResponseFormat = ResponseFormat()
    tools: fields.ToolList[fields.Tool] = Field([])
    tool_choice: fields.ToolChoiceWord | FunctionChoice = "auto"
    parallel_tool_calls: bool = Field(True, description="Whether an answer may have several calls.")
    reasoning_effort: fields.EffortName = "low"
    chat_template_kwargs: TemplateVariables = TemplateVariables.model_validate({})
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=LOGPROBS_MAX)] | None = Field(
        None, description="Requires logprobs."
    )


class CompletionRequest(OpenAiRequest):
    """Body of /v1/completions."""

    refused: ClassVar[dict[str, str]] = {
        "suffix": "write it into the prompt as the model expects it",
        "best_of": "use n",
    }

    prompt: str | Annotated[list[str], _PROMPTS] | Tokens | Annotated[list[Tokens], _PROMPTS]
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="0 requires echo.")
    calculator: bool = True
    echo: bool = Field(
        False, description="Begin the answer with the prompt, and its log-probabilities with the prompt's."
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None  # as in OpenAI's API

    @property
    def prompts(self) -> list[Any]:
        """The prompts, each a text or tokens."""
        return texts_of(self.prompt)


def texts_of(value: Any) -> list[Any]:
    """Texts as a list, each a string or tokens, for which a single one may stand."""
    single = isinstance(value, str) or isinstance(value[0], int)
    return [value] if single else value


def chat_messages(body: ChatRequest) -> list[Message]:
    """Messages of a chat request; the role "developer" is "system" in chat templates.

    Raises:
        HttpError: 400 a message lacks a field, or has one that is not for its role.
    """
    return [_message(message, f"messages[{index}]") for index, message in enumerate(body.messages)]


def _message(message: ChatMessage, path: str) -> Message:
    if message.content is None and not message.tool_calls:
        raise field_error(f"{path}.content", "is missing")
    if message.tool_calls and message.role != "assistant":
        raise field_error(f"{path}.tool_calls", "is only for the role assistant")
    if (message.role == "tool") == (message.tool_call_id is None):
        raise field_error(f"{path}.tool_call_id", "is required for the role tool and not allowed otherwise")
    calls = [
        parse_call(
            call.id,
            call.function.name,
            call.function.arguments,
            f"{path}.tool_calls[{index}].function.arguments",
        )
        for index, call in enumerate(message.tool_calls)
    ]
    role = "system" if message.role == "developer" else message.role
    return Message(role, fields.text_of(message.content), tuple(calls), message.tool_call_id)


def format_grammar(kind: str, schema: Json | None, param: str) -> Grammar | None:
    """Grammar for the format of an answer: text, json_object, or json_schema, which alone has a schema.

    `param` is the field of the schema.

    Raises:
        RequestError: the schema is rejected.
        HttpError: 400 the schema is missing, or the type takes no schema.
    """
    if (schema is None) == (kind == "json_schema"):
        raise field_error(param, "is required for the type json_schema and not allowed otherwise")
    return None if kind == "text" else from_schema(JSON_OBJECT if schema is None else schema)


def chat_request(body: ChatRequest, tools: ToolUse, common: Json) -> InternalRequest:
    """What a chat request asks; `common` are options that are not the body's.

    Raises:
        RequestError: an option is invalid, or the schema is rejected.
        HttpError: 400 fields contradict each other; see also ToolUse.grammar().
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise field_error("top_logprobs", "requires logprobs: true")
    described, think = body.response_format.json_schema, body.chat_template_kwargs.enable_thinking
    schema = described.schema_ if described else None
    asked = InternalRequest.of(
        chat_messages(body),
        tools,
        answers=body.n,
        stop=fields.stop_texts(body.stop),
        grammar=tools.grammar(
            format_grammar(body.response_format.type, schema, "response_format.json_schema")
        ),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        **common | ({} if think is None else {"think": think}),
        **body.sampling,
    )
    if body.n > 1 and asked.options.votes:
        message = f"reasoning_effort {asked.options.effort} cannot be combined with n above 1"
        raise HttpError(400, message, param="n")
    _check_entries(common["max_tokens"] * body.n, asked.options.logprobs)
    return replace(asked, options=_varied(body, asked.options))


def _varied(body: OpenAiRequest, options: Options) -> Options:
    return options.stochastic if body.n > 1 and body.temperature is None else options


def _check_entries(tokens: int, logprobs: int | None) -> None:
    """Check how many log-probabilities the answers may have."""
    entries = tokens * (1 + (logprobs or 0))
    if logprobs is not None and entries > _LOGPROB_ENTRIES_MAX:
        message = (
            f"up to {entries} log-probabilities, at most {_LOGPROB_ENTRIES_MAX}: reduce max_tokens, n or "
        )
        raise HttpError(400, f"{message}the number of likeliest tokens", param="logprobs")


@dataclass(frozen=True, slots=True)
class EchoedPrompt:
    """A prompt that the answer begins with, and the log-probabilities of all its tokens but the first."""

    text: str
    tokens: Sequence[int]
    logprobs: Sequence[TokenLogprob] | None

    @property
    def empty_answer(self) -> Piece:
        """An answer of no tokens."""
        usage, nothing = Usage(len(self.tokens), 0), Timings(0.0, 0.0, 0.0)
        return Piece("", answer=Answer(None, "", StopReason.LENGTH, usage, nothing, (), verified=False))

    def before(self, piece: Piece) -> Piece:
        """The first piece of an answer, behind the prompt."""
        logprobs = piece.logprobs
        if self.logprobs is not None:
            logprobs = (TokenLogprob(self.tokens[0], 0.0), *self.logprobs, *logprobs)
        return replace(piece, text=self.text + piece.text, logprobs=logprobs)


@dataclass
class ChatFormat:
    """Writes chat completions, whole and as chunks of a stream; CompletionFormat writes text completions.

    Attributes:
        model: model name.
        engine: the engine that answers.
        answers: answers per prompt.
        tools: what the answers may call.
        echoed: prompts that text completions begin with.
    """

    model: str
    engine: Engine
    answers: int
    tools: ToolUse = field(default_factory=ToolUse)
    echoed: Sequence[EchoedPrompt] = ()
    kinds: ClassVar[tuple[str, str, str]] = ("chatcmpl", "chat.completion", "chat.completion.chunk")

    def __post_init__(self) -> None:
        self._id, self._created = f"{self.kinds[0]}-{uuid4().hex}", int(time())
        self._parsers: dict[int, ToolCallParser] = defaultdict(self.tools.parser)
        self._begun = set[int]()
        self._offsets: dict[int, _TextOffsets] = defaultdict(_TextOffsets)

    def response(self, pieces: Sequence[Piece]) -> Json:
        """Response with all answers, each given as one piece."""
        choices = [self._choice(index, piece, streamed=False) for index, piece in enumerate(pieces)]
        usage = self._usage([piece.answer for piece in pieces if piece.answer])
        return {**self._header(self.kinds[1]), "choices": choices, "usage": usage}

    async def events(self, pieces: AsyncIterator[tuple[int, Piece]], *, usage: bool) -> AsyncIterator[str]:
        """Events of a stream, with the usage in the last chunk if it is asked for."""
        answers, none = dict[int, Answer](), {"usage": None} if usage else {}
        async for index, piece in pieces:
            if piece.answer:
                answers[index] = piece.answer
            choices = [self._choice(index, piece, streamed=True)]
            yield format_event({**self._header(self.kinds[2]), "choices": choices, **none})
        if usage:
            told = self._usage([answers[index] for index in sorted(answers)])
            yield format_event({**self._header(self.kinds[2]), "choices": [], "usage": told})
        yield DONE_EVENT

    def _header(self, kind: str) -> Json:
        header = {"id": self._id, "object": kind, "created": self._created, "model": self.model}
        return {**header, "system_fingerprint": _FINGERPRINT}

    def _usage(self, answers: Sequence[Answer]) -> Json:
        """Usage of a response: a prompt counts once for its answers."""
        prompts = [answer.usage for answer in answers[:: self.answers]]
        prompt = sum(usage.prompt_tokens for usage in prompts)
        completion = sum(answer.usage.completion_tokens for answer in answers)
        thinking = sum(answer.usage.thinking_tokens for answer in answers)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in prompts)},
            "completion_tokens_details": {"reasoning_tokens": thinking},
        }

    def _choice(self, index: int, piece: Piece, *, streamed: bool) -> Json:
        text, calls = self._parsers[index].take(piece)
        said: Json = {"content": text, **reasoning_json(piece)}
        if streamed:
            said |= {} if index in self._begun else {"role": "assistant"}
        else:
            said |= {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if calls:
            said["tool_calls"] = [
                {**({"index": at} if streamed else {}), **_call_json(call)} for at, call in enumerate(calls)
            ]
        self._begun.add(index)
        return {"index": index, "delta" if streamed else "message": said, **self._end(index, piece, calls)}

    def _end(self, index: int, piece: Piece, calls: Sequence[AnswerCall] = ()) -> Json:
        reason = FINISH_REASONS[piece.answer.stop_reason] if piece.answer else None
        reason = "tool_calls" if calls and reason == "stop" else reason
        logprobs = piece.logprobs[piece.thinking_tokens :]
        shown = self._logprobs(index, logprobs) if logprobs else None
        return {"logprobs": shown, "finish_reason": reason, **warning_json(piece.answer)}

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> Json:
        content = [
            self._entry(entry.token, entry.logprob)
            | {"top_logprobs": [self._entry(*top) for top in entry.top]}
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> Json:
        data = self.engine.model.token_to_piece(token)
        return {"token": _text(data), "logprob": max(logprob, _LOGPROB_MIN), "bytes": list(data)}


def _call_json(call: AnswerCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def warning_json(answer: Answer | None) -> Json:
    """The field that tells of an answer that violates its JSON schema; none if it does not."""
    return {"warning": f"schema violated: {answer.violation}"} if answer and answer.violation else {}


def reasoning_json(piece: Piece, name: str = "reasoning_content") -> Json:
    """The votes so far and the thought, if there are any."""
    return {name: piece.reasoning} if piece.reasoning else {}


class CompletionFormat(ChatFormat):
    """Writes text completions."""

    kinds: ClassVar[tuple[str, str, str]] = ("cmpl", "text_completion", "text_completion")

    def _choice(self, index: int, piece: Piece, *, streamed: bool) -> Json:
        first = index not in self._begun
        self._begun.add(index)
        if self.echoed and first:
            piece = self.echoed[index // self.answers].before(piece)
        choice = {"index": index, "text": piece.text, **self._end(index, piece)}
        if self.echoed and first and choice["logprobs"]:  # nothing comes before the first token: it has none
            choice["logprobs"]["token_logprobs"][0] = choice["logprobs"]["top_logprobs"][0] = None
        return choice

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> Json:
        pieces = [self.engine.model.token_to_piece(entry.token) for entry in logprobs]
        return {
            "tokens": [*map(_text, pieces)],
            "token_logprobs": [max(entry.logprob, _LOGPROB_MIN) for entry in logprobs],
            "top_logprobs": [self._likeliest(entry.top) for entry in logprobs],
            "text_offset": [self._offsets[index].add(piece) for piece in pieces],
        }

    def _likeliest(self, top: Iterable[tuple[int, float]]) -> dict[str, float]:
        """Log-probabilities by text; of tokens with the same text, that of the likeliest."""
        logprobs: dict[str, float] = {}
        for token, logprob in top:
            logprobs.setdefault(_text(self.engine.model.token_to_piece(token)), max(logprob, _LOGPROB_MIN))
        return logprobs


class _TextOffsets:
    """Where the texts of tokens begin, in characters of the whole answer, over all chunks of a stream."""

    def __init__(self) -> None:
        self._decoder, self._offset = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def add(self, token: bytes) -> int:
        """Where the next token begins; a part of a character begins after those before."""
        offset = self._offset
        self._offset += len(self._decoder.decode(token))
        return offset


def _text(data: bytes) -> str:
    """Text of a token; an incomplete UTF-8 sequence becomes U+FFFD."""
    return data.decode("utf-8", "replace")


@dataclass
class OpenAiEndpoints(Endpoints):
    """Chat and text completions, and models.

    Attributes:
        created: start time in Unix seconds, the `created` field of the models.
    """

    created: int = field(default_factory=lambda: int(time()))
    operations = (
        Operation("POST", "/v1/chat/completions", "chat", ChatRequest),
        Operation("POST", "/v1/completions", "completion", CompletionRequest),
        Operation("GET", "/v1/models", "models"),
        Operation("GET", "/v1/models/{model}", "model"),
    )

    async def chat(self, request: Request, body: ChatRequest) -> Response:
        """Answer a conversation."""
        engine, adapter = self._model(request, body.model)
        functions, choice = [tool.function for tool in body.tools], body.tool_choice
        named = None if isinstance(choice, str) else choice.function.name
        tools = ToolUse.of(functions, engine, choice, named, several=body.parallel_tool_calls)
        asked = {"max_completion_tokens": body.max_completion_tokens, "max_tokens": body.max_tokens}
        common = self._common(request, adapter, body, ("reasoning_effort", body.reasoning_effort), **asked)
        self._check_answers(body.n)
        handles = await self._ask(request, lambda: chat_request(body, tools, common))
        written = ChatFormat(Call.of(request).model, engine, body.n, tools)
        return await self._respond(request, body, written, handles)

    async def completion(self, request: Request, body: CompletionRequest) -> Response:
        """Complete texts."""
        if body.max_tokens == 0 and not body.echo:
            raise field_error("max_tokens", "0 requires echo: true")
        if body.max_tokens == 0 and body.stream:
            raise field_error("max_tokens", "0 leaves nothing to stream")
        engine, adapter = self._model(request, body.model)
        self._check_answers(body.n, len(body.prompts))
        max_tokens = self._max_tokens(request, MAX_TOKENS, max_tokens=body.max_tokens)
        written = CompletionFormat(Call.of(request).model, engine, body.n)
        if body.echo:
            written.echoed = await self._echoed(request, body, max_tokens, adapter)
        if not max_tokens:
            return await _whole(
                written, [prompt.empty_answer for prompt in written.echoed for _ in range(body.n)]
            )

        def prepare() -> list[EngineRequest]:
            prompts = [prompt.tokens for prompt in written.echoed] or _prompt_tokens(engine, body)
            _check_entries(max_tokens * len(prompts) * body.n, body.logprobs)
            options = Options(
                adapter=adapter,
                namespace=Call.of(request).namespace,
                max_tokens=max_tokens,
                stop=fields.stop_texts(body.stop),
                calculator=body.calculator,
                logprobs=body.logprobs,
                report_end=body.echo,
                think_budget=0,  # its text is the whole output
                **body.sampling,
            )
            seeded = _varied(body, options).with_seeds(body.n)
            return [EngineRequest(tuple(prompt), options) for prompt in prompts for options in seeded]

        handles = await self._submit(request, prepare)
        return await self._respond(request, body, written, handles)

    def _check_answers(self, n: int, prompts: int = 1) -> None:
        most = self.limits.answers
        if n > most:
            raise HttpError(422, f"n must be less than or equal to {most}", param="n")
        if n * prompts > most:
            raise HttpError(400, f"prompts times n is {n * prompts}, at most {most}", param="n")

    async def models(self, _: Request) -> Response:
        """List the models."""
        return JSONResponse({"object": "list", "data": [*map(self._entry, self.service.models)]})

    async def model(self, request: Request) -> Response:
        """Describe a model."""
        name, _ = self.service.resolve_model(request.path_params["model"])
        return JSONResponse(self._entry(name))

    def _entry(self, name: str) -> Json:
        entry = {"id": name, "object": "model", "created": self.created, "owned_by": "thirteen"}
        if read_pooling(self.service.engine.model.header):
            return entry | {"capabilities": ["embedding"]}
        return entry | {"default_effort": self.service.default_effort(name, self.limits.answers)}

    async def _respond(
        self, request: Request, body: OpenAiRequest, written: ChatFormat, handles: Sequence[Handle]
    ) -> Response:
        if body.stream:
            pieces = merge_streams(handles)
            return event_stream(written.events(pieces, usage=body.stream_options.include_usage))
        return await _whole(written, await collect_answers(request, handles))

    async def _echoed(
        self, request: Request, body: CompletionRequest, max_tokens: int, adapter: str
    ) -> list[EchoedPrompt]:
        """The prompts with the log-probabilities of their tokens, if these are asked for."""
        engine, echoed = Call.of(request).engine, list[EchoedPrompt]()
        async with self.service.scoring_turn():
            prompts = await to_thread.run_sync(_prompt_tokens, engine, body)
            if not all(prompts):
                raise field_error("prompt", "is empty")
            _check_entries(sum(len(prompt) + max_tokens for prompt in prompts) * body.n, body.logprobs)
            for prompt, tokens in zip(body.prompts, prompts, strict=True):
                if await request.is_disconnected():
                    raise ClientDisconnect
                logprobs = None
                if body.logprobs is not None:
                    score = partial(engine.prompt_logprobs, tokens, body.logprobs, adapter)
                    logprobs = await to_thread.run_sync(score)
                pieces = b"".join(map(engine.model.token_to_piece, tokens))
                text = prompt if isinstance(prompt, str) else _text(pieces)
                echoed.append(EchoedPrompt(text, tokens, logprobs))
        return echoed


def _prompt_tokens(engine: Engine, body: CompletionRequest) -> list[tuple[int, ...]]:
    prompts = list[tuple[int, ...]]()
    for prompt in body.prompts:
        if not isinstance(prompt, str):
            engine.model.check_tokens(prompt)
        prompts.append(engine.encode_text(prompt) if isinstance(prompt, str) else tuple(prompt))
    return prompts


async def _whole(written: ChatFormat, pieces: Sequence[Piece]) -> Response:
    """Response with all answers, each given as one piece."""
    return await to_thread.run_sync(lambda: JSONResponse(written.response(pieces)))
