"""llama.cpp's grammar sampler without logits: checks whether it accepts a text, samples texts it allows."""

import ctypes
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import llama_cpp
from thirteen.runtime.grammar.grammar import Grammar
from thirteen.runtime.llama.model import Model

BYTES, END = 256, 258  # tiny model: number of byte tokens, and the end-of-turn token


class NativeGrammar:
    """llama.cpp's grammar sampler on the tiny model's vocabulary, in which each byte is a token."""

    def __init__(self, model: Model) -> None:
        self._vocab = model.vocab
        self._tokens = {model.token_to_piece(token): token for token in range(BYTES)}
        self._pieces = {token: piece for piece, token in self._tokens.items()} | {END: b""}

    @contextmanager
    def sampler(self, grammar: Grammar) -> Iterator[Any]:
        """Yield llama.cpp's handle of the sampler; None if the grammar does not compile."""
        text, root = grammar.text.encode(), grammar.root.encode()
        sampler = llama_cpp.llama_sampler_init_grammar(self._vocab, text, root)
        try:
            yield sampler
        finally:
            if sampler:
                llama_cpp.llama_sampler_free(sampler)

    def _allowed(self, sampler: Any, tokens: Iterable[int]) -> list[int]:
        data = [llama_cpp.llama_token_data(token, 0.0, 0.0) for token in tokens]
        array = (llama_cpp.llama_token_data * len(data))(*data)
        candidates = llama_cpp.llama_token_data_array(array, len(data), -1, False)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(candidates))
        return [entry.id for entry in array if entry.logit == 0.0]

    def accepts(self, grammar: Grammar, text: str) -> bool:
        """Return whether the whole text matches the grammar."""
        with self.sampler(grammar) as sampler:
            assert sampler, grammar.text
            for byte in text.encode():
                token = self._tokens[bytes((byte,))]
                if not self._allowed(sampler, [token]):
                    return False
                llama_cpp.llama_sampler_accept(sampler, token)
            return bool(self._allowed(sampler, [END]))

    def sample_text(
        self, grammar: Grammar, random: Random, max_bytes: int = 400, closing_bytes: int = 40
    ) -> str | None:
        """Sample a random text that the grammar allows.

        The text is valid UTF-8; llama.cpp also allows overlong encodings, which no model has seen. A string,
        object or array that can be closed is closed with a probability that rises from 0 to 1 over the first
        `closing_bytes` bytes.

        Returns:
            The text; None if it has not ended after `max_bytes` bytes.
        """
        output = b""
        with self.sampler(grammar) as sampler:
            assert sampler, grammar.text
            while len(output) < max_bytes:
                allowed = self._allowed(sampler, self._pieces)
                tokens = [token for token in allowed if _is_utf_8_prefix(output + self._pieces[token])]
                assert tokens, f"nothing may follow {output!r}"
                closers = [token for token in tokens if self._pieces[token] in (b'"', b"}", b"]", b"")]
                if closers and random.randrange(closing_bytes) < len(output):
                    tokens = closers
                token = random.choice(tokens)
                if token == END:
                    return output.decode()
                llama_cpp.llama_sampler_accept(sampler, token)
                output += self._pieces[token]
        return None


def _is_utf_8_prefix(data: bytes) -> bool:
    try:
        getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True
