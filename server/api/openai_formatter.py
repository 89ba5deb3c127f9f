"""Responses of OpenAI's chat and text completions, whole and as chunks of a stream, also with the prompt."""

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from time import time
from typing import Any
from uuid import uuid4

from ...runtime.answer import Answer, Piece
from ...runtime.request import StopReason, Timings, TokenLogprob, Usage
from .tool_calls import AnswerCall, ToolCallParser, ToolUse

Json = dict[str, Any]

_FINGERPRINT = f"thirteen-{version('thirteen')}"
_LOGPROB_MIN = -9999.0  # OpenAI's value for an impossible token; JSON has no infinity
FINISH_REASONS = {StopReason.END: "stop", StopReason.STOP: "stop", StopReason.LENGTH: "length"}


@dataclass(frozen=True)
class ResponseFormatter:
    """Formats chat completions; CompletionFormatter formats text completions.

    Attributes:
        model: model name.
        token_bytes: returns the bytes of a token id.
        choices: answers per prompt.
        id: id of the response.
        created: Unix time of the response.
        tools: what the answers may call.
    """

    model: str
    token_bytes: Callable[[int], bytes]
    choices: int
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time()))
    tools: ToolUse = field(default_factory=ToolUse)
    _parsers: dict[int, ToolCallParser] = field(init=False)
    response_type = "chat.completion"
    chunk_type = "chat.completion.chunk"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parsers", defaultdict(self.tools.parser))

    def response(self, pieces: Sequence[Piece]) -> Json:
        """Response with all answers, each given as one piece."""
        answers = [piece.answer for piece in pieces if piece.answer]
        return {
            **self._header(self.response_type),
            "choices": [self._choice(index, piece) for index, piece in enumerate(pieces)],
            "usage": usage_json(answers, self.choices),
        }

    def chunk(self, index: int, piece: Piece, *, first: bool) -> Json:
        """Stream chunk with one piece of an answer."""
        return {**self._header(self.chunk_type), "choices": [self._chunk_choice(index, piece, first=first)]}

    def usage_chunk(self, answers: Sequence[Answer]) -> Json:
        """Last chunk of a stream, with the usage and no choices."""
        return {**self._header(self.chunk_type), "choices": [], "usage": usage_json(answers, self.choices)}

    def _header(self, object_type: str) -> Json:
        return {
            "id": self.id,
            "object": object_type,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": _FINGERPRINT,
        }

    def _choice(self, index: int, piece: Piece) -> Json:
        text, calls = self._parsers[index].take(piece)
        message: Json = {"role": "assistant", "content": text, "refusal": None, **_reasoning(piece)}
        if calls:
            message |= {"content": text or None, "tool_calls": [call.to_json() for call in calls]}
        return {"index": index, "message": message, **self._finish(index, piece, calls)}

    def _chunk_choice(self, index: int, piece: Piece, *, first: bool) -> Json:
        text, calls = self._parsers[index].take(piece)
        delta: Json = {"role": "assistant"} if first else {}
        delta |= {"content": text, **_reasoning(piece)}
        if calls:
            delta["tool_calls"] = [{"index": at, **call.to_json()} for at, call in enumerate(calls)]
        return {"index": index, "delta": delta, **self._finish(index, piece, calls)}

    def _finish(self, index: int, piece: Piece, calls: Sequence[AnswerCall] = ()) -> Json:
        reason = FINISH_REASONS[piece.answer.stop_reason] if piece.answer else None
        if calls and reason == "stop":
            reason = "tool_calls"
        logprobs = piece.logprobs[piece.thinking_tokens :]
        shown = self._logprobs(index, logprobs) if logprobs else None
        return {"logprobs": shown, "finish_reason": reason}

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> Json:
        content = [
            {
                **self._token_logprob(entry.token, entry.logprob),
                "top_logprobs": [self._token_logprob(*top) for top in entry.top],
            }
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}

    def _token_logprob(self, token: int, logprob: float) -> Json:
        data = self.token_bytes(token)
        return {"token": _token_text(data), "logprob": max(logprob, _LOGPROB_MIN), "bytes": list(data)}


def _reasoning(piece: Piece) -> Json:
    """The votes so far and the thought, if there are any."""
    return {"reasoning_content": piece.reasoning} if piece.reasoning else {}


class _TextOffsets:
    """Where the texts of tokens begin, in characters of the whole answer, over all chunks of a stream."""

    def __init__(self) -> None:
        self._decoder, self._offset = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def add(self, token: bytes) -> int:
        """Where the next token begins; a part of a character begins after those before."""
        offset = self._offset
        self._offset += len(self._decoder.decode(token))
        return offset


@dataclass(frozen=True)
class CompletionFormatter(ResponseFormatter):
    """Formats text completions."""

    id: str = field(default_factory=lambda: f"cmpl-{uuid4().hex}")
    response_type = "text_completion"
    chunk_type = "text_completion"
    _offsets: dict[int, _TextOffsets] = field(default_factory=lambda: defaultdict(_TextOffsets), init=False)

    def _choice(self, index: int, piece: Piece) -> Json:
        return {"index": index, "text": piece.text, **self._finish(index, piece)}

    def _chunk_choice(self, index: int, piece: Piece, *, first: bool) -> Json:
        return self._choice(index, piece)

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> Json:
        pieces = [self.token_bytes(entry.token) for entry in logprobs]
        return {
            "tokens": [_token_text(piece) for piece in pieces],
            "token_logprobs": [max(entry.logprob, _LOGPROB_MIN) for entry in logprobs],
            "top_logprobs": [self._top_logprobs(entry.top) for entry in logprobs],
            "text_offset": [self._offsets[index].add(piece) for piece in pieces],
        }

    def _top_logprobs(self, top: Iterable[tuple[int, float]]) -> dict[str, float]:
        """Log-probabilities by text; of tokens with the same text, that of the likeliest."""
        found: dict[str, float] = {}
        for token, logprob in top:
            found.setdefault(_token_text(self.token_bytes(token)), max(logprob, _LOGPROB_MIN))
        return found


def _token_text(data: bytes) -> str:
    """Text of a token; an incomplete UTF-8 sequence becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def usage_json(answers: Sequence[Answer], choices: int) -> Json:
    """Usage of a response: the prompt counts once for its `choices` consecutive answers."""
    prompt = sum(answer.usage.prompt_tokens for answer in answers[::choices])
    completion = sum(answer.usage.completion_tokens for answer in answers)
    cached = sum(answer.usage.cached_tokens for answer in answers[::choices])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {
            "reasoning_tokens": sum(answer.usage.thinking_tokens for answer in answers)
        },
    }


@dataclass(frozen=True, slots=True)
class EchoedPrompt:
    """A prompt that the answer begins with.

    Attributes:
        text: its text.
        tokens: its tokens.
        logprobs: log-probabilities of all tokens but the first; None if they are not asked for.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: Sequence[TokenLogprob] | None

    @property
    def empty_answer(self) -> Piece:
        """An answer of no tokens."""
        nothing = Timings(0.0, 0.0, 0.0)
        usage = Usage(len(self.tokens), 0)
        return Piece("", answer=Answer(None, "", StopReason.LENGTH, usage, nothing, (), verified=False))


@dataclass(frozen=True)
class EchoFormatter(CompletionFormatter):
    """Formats text completions that begin with their prompts.

    Attributes:
        prompts: the prompts, each of `choices` answers.
    """

    prompts: Sequence[EchoedPrompt] = ()

    def _choice(self, index: int, piece: Piece) -> Json:
        prompt, logprobs = self.prompts[index // self.choices], piece.logprobs
        if prompt.logprobs is not None:
            logprobs = (TokenLogprob(prompt.tokens[0], 0.0), *prompt.logprobs, *logprobs)
        choice = super()._choice(index, replace(piece, text=prompt.text + piece.text, logprobs=logprobs))
        if prompt.logprobs is not None:  # nothing comes before the first token: it has none
            choice["logprobs"]["token_logprobs"][0] = choice["logprobs"]["top_logprobs"][0] = None
        return choice

    def _chunk_choice(self, index: int, piece: Piece, *, first: bool) -> Json:
        return self._choice(index, piece) if first else super()._choice(index, piece)
