"""State of one request in the engine: how far it is, and how it ended."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ..answer import SequenceEnd, StopReason, Timings, Usage
from ..request import BASE, MAX_TOKENS, Request


class PrefixKey(NamedTuple):
    """Key of a part of the prefix cache: an adapter and a namespace."""

    adapter: str
    namespace: str = ""


@dataclass(slots=True, eq=False)
class SequenceState:
    """State of a request in the engine.

    Attributes:
        request: the request.
        context: tokens that its slot can hold.
        adapter: name of its adapter.
        max_tokens: maximum tokens of its output.
        scored: whether the log-probabilities of sampled tokens are computed.
        slot: slot of the KV cache; None while it waits and after it has ended.
        cached: prompt tokens restored from the prefix cache.
        computed: tokens whose KV cache is in the slot.
        saves: positions in its prompt, descending, at which a batch ends because it is saved there.
        output: generated tokens.
        output_at: time of each of them, in seconds of time.perf_counter(), as all times here.
        sampled: number of output tokens sampled from the model; the calculator or a grammar inserted the
            others.
        log_likelihood: sum of the sampled tokens' log-probabilities, where they are computed.
        thinking: the thought before the answer, once it has ended.
        thinking_tokens: number of its tokens.
        stop_reason: why it ended; None while it has not.
        submitted_at: time of submission.
        started_at: time of its first batch; 0 before it.
    """

    request: Request
    context: int
    adapter: str = BASE
    max_tokens: int = MAX_TOKENS
    scored: bool = False
    slot: int | None = None
    cached: int = 0
    computed: int = 0
    saves: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    output_at: list[float] = field(default_factory=list)
    sampled: int = 0
    log_likelihood: float = 0.0
    thinking: str = ""
    thinking_tokens: int = 0
    stop_reason: StopReason | None = None
    submitted_at: float = 0.0
    started_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0

    @property
    def prefix_key(self) -> PrefixKey:
        """Key of its prompt in the prefix cache."""
        return PrefixKey(self.adapter, self.request.options.namespace)

    @property
    def running_slot(self) -> int:
        """The slot of a running sequence."""
        assert self.slot is not None, "a running sequence has a slot"
        return self.slot

    @property
    def length(self) -> int:
        """Tokens of prompt and output."""
        return len(self.request.tokens) + len(self.output)

    @property
    def pending(self) -> int:
        """Tokens that are known but not computed."""
        return self.length - self.computed

    @property
    def decoding(self) -> bool:
        """Whether prefill is done."""
        return bool(self.output)

    @property
    def remaining(self) -> int:
        """Tokens that can follow; the last one needs no place in the context."""
        return min(self.max_tokens - len(self.output), self.context + 1 - self.length)

    @property
    def end(self) -> SequenceEnd:
        """Result of the sequence, which has ended."""
        assert self.stop_reason is not None, "the sequence has ended"
        usage = Usage(
            prompt_tokens=len(self.request.tokens),
            # The end-of-generation token counts, though it is not in the output.
            completion_tokens=len(self.output) + (self.stop_reason is StopReason.END),
            cached_tokens=self.cached,
            sampled_tokens=self.sampled,
            thinking_tokens=self.thinking_tokens,
        )
        timings = Timings(0.0, 0.0, 0.0)
        if first := self.first_token_at:
            timings = Timings(first - self.started_at, first - self.submitted_at, self.last_token_at - first)
        token_s = tuple(at - self.submitted_at for at in self.output_at)
        return SequenceEnd(
            self.stop_reason, usage, timings, self.log_likelihood, token_s, thinking=self.thinking
        )

    def next_tokens(self, limit: int) -> tuple[int, ...]:
        """Up to `limit` pending tokens, in order, none of them behind a position where it is saved."""
        prompt = self.request.tokens
        if self.saves:
            limit = min(limit, self.saves[-1] - self.computed)
        if self.computed < len(prompt):
            return prompt[self.computed : self.computed + limit]
        start = self.computed - len(prompt)
        return tuple(self.output[start : start + limit])
