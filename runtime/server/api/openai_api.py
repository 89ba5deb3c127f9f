"""OpenAI's chats and completions: from the fields of a body to requests, from answers to its shapes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from secrets import randbelow
from time import time
from typing import Any
from uuid import uuid4

from ...answer import Answer
from ...engine.chat_template import Message
from ...engine.handle import Piece
from ...grammar.grammar import Grammar, from_schema
from ...request import SEED_MAX, Request, Sampling, StopReason, TokenLogprob
from ..http_errors import HttpError

Fields = Mapping[str, Any]
Json = dict[str, Any]
TokenBytes = Callable[[int], bytes]  # the bytes of a token

_LEAST_LOGPROB = -9999.0  # OpenAI's word for what is all but impossible; JSON has no infinity
_FINISH = {StopReason.END: "stop", StopReason.STOP: "stop", StopReason.LENGTH: "length"}


def messages(fields: Fields) -> list[Message]:
    """The conversation in a chat's body; what developers say is what templates call system."""
    return [
        Message("system" if said["role"] == "developer" else said["role"], _said(said["content"]))
        for said in fields["messages"]
    ]


def _said(content: str | Sequence[Fields]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def grammar(fields: Fields) -> Grammar | None:
    """What a chat's response_format wants the answer to follow.

    Raises:
        RequestError: its schema is wrong, or cannot be enforced.
        RefusalError: the schema is missing, or has nothing to do with the type.
    """
    wish = fields["response_format"]
    if wish is None:
        return None
    if (wish["json_schema"] is None) == (wish["type"] == "json_schema"):
        raise HttpError(
            400,
            "response_format: json_schema is for the type json_schema, which needs it",
            param="response_format.json_schema",
        )
    if wish["type"] == "text":
        return None
    return from_schema({"type": "object"} if wish["type"] == "json_object" else wish["json_schema"]["schema"])


def chat_requests(fields: Fields, prompt: tuple[int, ...], adapter: str) -> list[Request]:
    """The requests of a chat's body: as many as it wants answers.

    Raises:
        RequestError: what it wants cannot be done; see grammar().
    """
    if fields["top_logprobs"] is not None and not fields["logprobs"]:
        raise HttpError(400, "top_logprobs is for logprobs: true", param="top_logprobs")
    most = fields["max_completion_tokens"]
    return _requests(
        fields if most is None else {**fields, "max_tokens": most},
        [prompt],
        adapter,
        logprobs=(fields["top_logprobs"] or 0) if fields["logprobs"] else None,
        grammar=grammar(fields),
    )


def completion_requests(fields: Fields, prompts: Sequence[tuple[int, ...]], adapter: str) -> list[Request]:
    """The requests of a completion's body: for each of its prompts, as many as it wants answers."""
    return _requests(fields, prompts, adapter, logprobs=fields["logprobs"], grammar=None)


def _requests(
    fields: Fields,
    prompts: Sequence[tuple[int, ...]],
    adapter: str,
    *,
    logprobs: int | None,
    grammar: Grammar | None,
) -> list[Request]:
    if fields["stream_options"] is not None and not fields["stream"]:
        raise HttpError(400, "stream_options is for stream: true", param="stream_options")
    return [
        Request(
            prompt,
            fields["max_tokens"],
            sampling,
            stop=fields["stop"] or (),
            calculator=fields["calculator"],
            grammar=grammar,
            adapter=adapter,
            logprobs=logprobs,
        )
        for prompt in prompts
        for sampling in _samplings(fields)
    ]


def _samplings(fields: Fields) -> list[Sampling]:
    """One for each answer, with a seed of its own."""
    sampling = Sampling(
        fields["temperature"] or 0.0,
        fields["top_k"],
        fields["top_p"],
        fields["min_p"],
        seed=randbelow(SEED_MAX + 1) if fields["seed"] is None else fields["seed"],
    )
    if fields["n"] > 1 and fields["temperature"] is None:
        sampling = sampling.varied
    return sampling.seeded(fields["n"])


@dataclass(frozen=True)
class ResponseFormatter:
    """The shape that answers come in: that of chats, or below that of completions.

    Attributes:
        model: its name.
        spell: gives the bytes of a token.
        choices: how many answers each prompt has.
    """

    model: str
    spell: TokenBytes
    choices: int
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time()))
    whole_kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def whole(self, pieces: Sequence[Piece]) -> Json:
        """The object that has all answers; each is one piece."""
        answers = [piece.answer for piece in pieces if piece.answer]
        return {
            **self._head(self.whole_kind),
            "choices": [self._choice(index, piece) for index, piece in enumerate(pieces)],
            "usage": usage(answers, self.choices),
        }

    def chunk(self, index: int, piece: Piece, *, first: bool) -> Json:
        """The object that has one more piece of an answer."""
        return {**self._head(self.chunk_kind), "choices": [self._part(index, piece, first=first)]}

    def last(self, answers: Sequence[Answer]) -> Json:
        """The object that ends a stream, with the usage."""
        return {**self._head(self.chunk_kind), "choices": [], "usage": usage(answers, self.choices)}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": _FINGERPRINT,
        }

    def _choice(self, index: int, piece: Piece) -> Json:
        said = {"role": "assistant", "content": piece.text, "refusal": None}
        return {"index": index, "message": said, **self._about(piece)}

    def _part(self, index: int, piece: Piece, *, first: bool) -> Json:
        said = {"role": "assistant", "content": piece.text} if first else {"content": piece.text}
        return {"index": index, "delta": said, **self._about(piece)}

    def _about(self, piece: Piece) -> Json:
        finish = _FINISH[piece.answer.stop_reason] if piece.answer else None
        return {"logprobs": self._logprobs(piece.logprobs), "finish_reason": finish}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json | None:
        if not logprobs:
            return None
        content = [
            {
                **self._token(of.token, of.logprob),
                "top_logprobs": [self._token(*other) for other in of.top],
            }
            for of in logprobs
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> Json:
        spelt = self.spell(token)
        return {"token": _text(spelt), "logprob": max(logprob, _LEAST_LOGPROB), "bytes": list(spelt)}


@dataclass(frozen=True)
class CompletionFormatter(ResponseFormatter):
    """The shape of completions."""

    id: str = field(default_factory=lambda: f"cmpl-{uuid4().hex}")
    whole_kind = "text_completion"
    chunk_kind = "text_completion"

    def _choice(self, index: int, piece: Piece) -> Json:
        return {"index": index, "text": piece.text, **self._about(piece)}

    def _part(self, index: int, piece: Piece, *, first: bool) -> Json:
        return self._choice(index, piece)

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json | None:
        if not logprobs:
            return None
        tokens = [_text(self.spell(of.token)) for of in logprobs]
        return {
            "tokens": tokens,
            "token_logprobs": [max(of.logprob, _LEAST_LOGPROB) for of in logprobs],
            "top_logprobs": [
                {_text(self.spell(token)): max(value, _LEAST_LOGPROB) for token, value in of.top}
                for of in logprobs
            ],
            "text_offset": [sum(map(len, tokens[:at])) for at in range(len(tokens))],
        }


def usage(answers: Sequence[Answer], choices: int) -> Json:
    """The tokens of some answers, of which so many in a row have their prompt in common."""
    prompt = sum(answer.usage.prompt_tokens for answer in answers[::choices])
    completion = sum(answer.usage.completion_tokens for answer in answers)
    cached = sum(answer.usage.cached_tokens for answer in answers[::choices])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def model_list(names: Iterable[str], created: int) -> Json:
    """The list of models."""
    return {"object": "list", "data": [model_entry(name, created) for name in names]}


def model_entry(name: str, created: int) -> Json:
    """One model of that list."""
    return {"id": name, "object": "model", "created": created, "owned_by": "thirteen"}


def _text(spelt: bytes) -> str:
    """A token's text; where it is part of a character, the bytes say what it is."""
    return spelt.decode("utf-8", "replace")


_FINGERPRINT = f"thirteen-{version('thirteen')}"
