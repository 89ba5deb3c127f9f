"""OpenAI's chat and text completions, and the list of models."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from time import time
from typing import Annotated, Literal
from uuid import uuid4

from anyio import to_thread
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ...runtime.answer import Piece, TokenLogprob
from ...runtime.engine.engine import Engine
from ...runtime.options import LOGPROBS_MAX, MAX_TOKENS, Options, Request
from ...runtime.prompt.prompt_encoder import Message, ToolCall
from ..engine_service import Call
from ..http_errors import check_field
from . import bodies
from .bodies import Json, RequestBody
from .core import Format, Said, answer_options, chat_request, format_event, format_grammar, respond
from .tool_calls import ToolUse, parse_call

_FINGERPRINT = f"thirteen-{version('thirteen')}"
_LOGPROB_MIN = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity
_STARTED = int(time())  # the field `created` of the models


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

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: bodies.Content | None = Field(None, description="Required, except beside tool_calls.")
    tool_calls: bodies.ToolList[MessageToolCall] = Field([], description="Only for the role assistant.")
    tool_call_id: str | None = Field(None, description="Required for the role tool, and only for it.")


class ResponseFormat(RequestBody):
    """Format of an answer."""

    type: bodies.FormatType = "text"
    json_schema: bodies.SchemaFormat | None = None


class TemplateVariables(RequestBody):
    """Variables of the chat template."""

    enable_thinking: bool | None = Field(None, description="Whether a model that can think does so.")


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: bool = False


class OpenAiRequest(bodies.Sampling):
    """Fields of both bodies."""

    model: bodies.ModelName = None
    n: bodies.Count = Field(1, description="Number of answers.")
    stop: bodies.Stop = Field([])
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    def check_answers(self, call: Call, prompts: int = 1) -> None:
        """Raise HttpError if there are more answers than the server allows."""
        most = call.service.limits.answers
        check_field(self.n * prompts <= most, "n", f"must be at most {most}, for all prompts together", 422)

    def samples(self, request: Request) -> list[Request]:
        """The requests for all answers; several are sampled by default, as they would all be the same."""
        varies = self.n > 1 and self.temperature is None
        options = request.options.stochastic if varies else request.options
        return [replace(request, options=seeded) for seeded in options.with_seeds(self.n)]


class ChatRequest(OpenAiRequest, bodies.Answering):
    """Body of /v1/chat/completions."""

    messages: bodies.MessageList[ChatMessage] = Field(min_length=1)
    max_tokens: bodies.Count | None = None
    max_completion_tokens: bodies.Count | None = Field(None, description="Takes precedence over max_tokens.")
    response_format: ResponseFormat = ResponseFormat()
    tools: bodies.ToolList[bodies.Tool] = Field([])
    tool_choice: bodies.ToolChoiceWord | bodies.Tool = "auto"
    parallel_tool_calls: bool = Field(True, description="Whether an answer may have several calls.")
    reasoning_effort: bodies.EffortName = "low"
    chat_template_kwargs: TemplateVariables = TemplateVariables.model_validate({})
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=LOGPROBS_MAX)] | None = None  # requires logprobs


class CompletionRequest(OpenAiRequest):
    """Body of /v1/completions."""

    prompt: Annotated[
        list[str | bodies.Tokens], Field(min_length=1, max_length=16, fail_fast=True), bodies.SEVERAL
    ]
    max_tokens: bodies.Count | None = None
    calculator: bool = True
    echo: bool = Field(False, description="Begin the answer with the prompt, and its log-probabilities.")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None  # as in OpenAI's API


def _message(message: ChatMessage, path: str) -> Message:
    """A message for the engine; the role "developer" is "system" in chat templates."""
    has_its_id = (message.role == "tool") == (message.tool_call_id is not None)
    by_model = message.role == "assistant" or not message.tool_calls
    check_field(message.content is not None or message.tool_calls, f"{path}.content", "is missing")
    check_field(by_model, f"{path}.tool_calls", "is only for the role assistant")
    check_field(has_its_id, f"{path}.tool_call_id", "is required for the role tool and not allowed otherwise")
    calls = list[ToolCall]()
    for index, call in enumerate(message.tool_calls):
        param = f"{path}.tool_calls[{index}].function.arguments"
        calls.append(parse_call(call.id, call.function.name, call.function.arguments, param))
    role = "system" if message.role == "developer" else message.role
    return Message(role, bodies.text_of(message.content), tuple(calls), message.tool_call_id)


class ChatFormat(Format):
    """Prints chat completions."""

    kinds = ("chatcmpl", "chat.completion", "chat.completion.chunk")

    def __init__(self, call: Call, body: OpenAiRequest) -> None:
        self.body, self._engine, self._answers = body, call.engine, dict[int, Said]()
        created, name = int(time()), f"{self.kinds[0]}-{uuid4().hex}"
        self._header = {
            "id": name,
            "created": created,
            "model": call.model,
            "system_fingerprint": _FINGERPRINT,
        }

    def whole(self, answers: Sequence[Said]) -> Json:
        choices = [self._choice(said, streamed=False) for said in answers]
        return {**self._header, "object": self.kinds[1], "choices": choices, "usage": self._usage(answers)}

    def part(self, said: Said) -> Iterator[str]:
        none = {"usage": None} if self.body.stream_options.include_usage else {}
        choices = [self._choice(said, streamed=True)]
        yield format_event({**self._header, "object": self.kinds[2], "choices": choices, **none})
        if said.piece.answer:
            self._answers[said.index] = said

    def end(self) -> Iterator[str]:
        if self.body.stream_options.include_usage:
            usage = self._usage([self._answers[index] for index in sorted(self._answers)])
            yield format_event({**self._header, "object": self.kinds[2], "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"

    def _usage(self, answers: Sequence[Said]) -> Json:
        """Usage of a response: a prompt counts once for its answers."""
        prompts = [said.answer.usage for said in answers[:: self.body.n]]
        prompt = sum(usage.prompt_tokens for usage in prompts)
        completion = sum(said.answer.usage.completion_tokens for said in answers)
        thinking = sum(said.answer.usage.thinking_tokens for said in answers)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in prompts)},
            "completion_tokens_details": {"reasoning_tokens": thinking},
        }

    def _choice(self, said: Said, *, streamed: bool) -> Json:
        message: Json = {"content": said.text, **said.reasoning("reasoning_content")}
        if not streamed:
            message |= {"content": said.text or (None if said.calls else ""), "refusal": None}
        if said.first:
            message["role"] = "assistant"
        for index, call in enumerate(said.calls):
            function = {"name": call.name, "arguments": call.arguments}
            described = {"id": call.id, "type": "function", "function": function}
            message.setdefault("tool_calls", []).append(({"index": index} if streamed else {}) | described)
        return {"index": said.index, "delta" if streamed else "message": message, **self._end(said)}

    def _end(self, said: Said) -> Json:
        logprobs = said.piece.logprobs[said.piece.thinking_tokens :]
        shown = self._logprobs(logprobs) if logprobs else None
        return {"logprobs": shown, "finish_reason": said.finish_reason, **said.warning}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json:
        content = [
            self._entry(entry.token, entry.logprob)
            | {"top_logprobs": [self._entry(*top) for top in entry.top]}
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> Json:
        data = self._engine.model.token_to_piece(token)
        return {
            "token": data.decode("utf-8", "replace"),
            "logprob": max(logprob, _LOGPROB_MIN),
            "bytes": list(data),
        }


class CompletionFormat(ChatFormat):
    """Prints text completions; `echoed` are the prompts that they begin with, each as a piece."""

    kinds = ("cmpl", "text_completion", "text_completion")
    echoed: Sequence[Piece] = ()

    def _choice(self, said: Said, *, streamed: bool) -> Json:
        echoes = bool(self.echoed) and said.first
        if echoes:
            prompt = self.echoed[said.index // self.body.n]
            said = replace(said, piece=Piece.joined([prompt, said.piece], said.piece.answer))
        choice = {"index": said.index, "text": said.piece.text, **self._end(said)}
        if echoes and choice["logprobs"]:  # nothing comes before the first token: it has none
            choice["logprobs"]["token_logprobs"][0] = choice["logprobs"]["top_logprobs"][0] = None
        return choice

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json:
        return {
            "tokens": [self._entry(entry.token, entry.logprob)["token"] for entry in logprobs],
            "token_logprobs": [max(entry.logprob, _LOGPROB_MIN) for entry in logprobs],
            "top_logprobs": [self._likeliest(entry) for entry in logprobs],
        }

    def _likeliest(self, entry: TokenLogprob) -> dict[str, float]:
        """Log-probabilities by text; of tokens with the same text, that of the likeliest."""
        found = [self._entry(*top) for top in reversed(entry.top)]
        return {one["token"]: one["logprob"] for one in found}


async def chat(call: Call, body: ChatRequest) -> Response:
    """Answer a conversation."""
    body.check_answers(call)
    check_field(body.logprobs or body.top_logprobs is None, "top_logprobs", "requires logprobs: true")
    choice, form = body.tool_choice, body.response_format
    chosen = choice if isinstance(choice, str) else choice.function
    functions = [tool.function for tool in body.tools]
    tools = ToolUse.of(functions, call.engine, chosen, several=body.parallel_tool_calls)
    limits = {"max_completion_tokens": body.max_completion_tokens, "max_tokens": body.max_tokens}
    options = answer_options(call, body, body.reasoning_effort, **limits)
    options |= {"stop": body.stop, "logprobs": (body.top_logprobs or 0) if body.logprobs else None}
    if (think := body.chat_template_kwargs.enable_thinking) is not None:
        options["think"] = think

    def prepare() -> list[Request]:
        messages = [_message(message, f"messages[{index}]") for index, message in enumerate(body.messages)]
        schema = form.json_schema.schema_ if form.json_schema else None
        grammar = format_grammar(form.type, schema, "response_format.json_schema")
        request = chat_request(call, messages, tools, body, options | {"grammar": grammar})
        problem = "must be 1: the answers of an effort above low vote"
        check_field(body.n == 1 or not request.options.effort.votes, "n", problem)
        return body.samples(request)

    await call.submit(prepare)
    return await respond(call, ChatFormat(call, body), tools, stream=body.stream)


async def completion(call: Call, body: CompletionRequest) -> Response:
    """Complete texts."""
    body.check_answers(call, len(body.prompt))
    form = CompletionFormat(call, body)
    options: Json = {"adapter": call.adapter, "namespace": call.key.namespace, "stop": body.stop}
    options |= {"calculator": body.calculator, "logprobs": body.logprobs, "report_end": body.echo}
    options["max_tokens"] = call.max_tokens(MAX_TOKENS, max_tokens=body.max_tokens)
    if body.echo:
        form.echoed = await _echoed(call, body)

    def prepare() -> list[Request]:
        made = Options(think_budget=0, **body.sampling, **options)  # its text is the whole output
        prompts = [prompt.tokens for prompt in form.echoed] or _prompt_tokens(call.engine, body)
        return [request for prompt in prompts for request in body.samples(Request(prompt, made))]

    await call.submit(prepare)
    return await respond(call, form, stream=body.stream)


async def _echoed(call: Call, body: CompletionRequest) -> list[Piece]:
    """The prompts with the log-probabilities of their tokens, if these are asked for."""
    engine, echoed = call.engine, list[Piece]()
    async with call.service.scoring:
        encoded = await to_thread.run_sync(_prompt_tokens, engine, body)
        for prompt, tokens in zip(body.prompt, encoded, strict=True):
            await call.check_connected()
            engine.model.check_tokens(tokens)
            logprobs: Sequence[TokenLogprob] = ()
            if body.logprobs is not None:
                scored = await to_thread.run_sync(engine.prompt_logprobs, tokens, body.logprobs, call.adapter)
                logprobs = (TokenLogprob(tokens[0], 0.0), *scored)
            text = b"".join(map(engine.model.token_to_piece, tokens)).decode("utf-8", "replace")
            echoed.append(Piece(prompt if isinstance(prompt, str) else text, tokens, tuple(logprobs)))
    return echoed


def _prompt_tokens(engine: Engine, body: CompletionRequest) -> list[tuple[int, ...]]:
    return [engine.encode_text(one) if isinstance(one, str) else tuple(one) for one in body.prompt]


async def models(call: Call) -> Response:
    """List the models."""
    entries = [_entry(call, name) for name in call.service.models]
    return JSONResponse({"object": "list", "data": entries})


async def model(call: Call) -> Response:
    """Describe a model."""
    name, _ = call.service.resolve_model(call.request.path_params["model"])
    return JSONResponse(_entry(call, name))


def _entry(call: Call, name: str) -> Json:
    entry = {"id": name, "object": "model", "created": _STARTED, "owned_by": "thirteen"}
    if call.engine.plan.embeds:
        return entry | {"capabilities": ["embedding"]}
    return entry | {"default_effort": call.service.default_effort(name)}
