"""Texts of a grammar without logits: checks whether it accepts a text, samples texts it allows."""

from codecs import getincrementaldecoder
from random import Random

from thirteen.runtime.grammar import Grammar
from thirteen.runtime.llama.constraint import GrammarCompiler
from thirteen.runtime.llama.model import Model

BYTES = 256  # of the tiny model's vocabulary, in which each byte is a token
CLOSERS, CLOSING_BYTES = (b'"', b"}", b"]", b""), 40


class GrammarTexts:
    """Grammars on the tiny model's vocabulary."""

    def __init__(self, model: Model) -> None:
        self._model, self._compiler = model, GrammarCompiler(model)
        self._tokens = {model.token_to_piece(token): token for token in range(BYTES)}

    def accepts(self, grammar: Grammar, text: str) -> bool:
        """Return whether the whole text matches the grammar."""
        constraint = self._compiler.constraint(grammar)
        tokens = [self._tokens[bytes((byte,))] for byte in text.encode()]
        return all(constraint.accept(token) for token in tokens) and any(
            self._model.is_eog(token) for token in constraint.allowed().tolist()
        )

    def sample(self, grammar: Grammar, random: Random, max_bytes: int = 400) -> str | None:
        """Sample a random text that the grammar allows.

        A string, object or array that can be closed is closed with a probability that rises from 0 to 1 over
        the first CLOSING_BYTES bytes. Forced tokens are taken at random, and must agree with the others.

        Returns:
            The text; None if it has not ended after `max_bytes` bytes.
        """
        output = b""
        constraint = self._compiler.constraint(grammar)
        while len(output) < max_bytes:
            if random.random() < 0.5:
                output += b"".join(self._model.token_to_piece(token) for token in constraint.take_forced())
            pieces = {token: self._model.token_to_piece(token) for token in constraint.allowed().tolist()}
            tokens = [token for token, piece in pieces.items() if _is_utf_8_prefix(output + piece)]
            assert tokens, f"nothing may follow {output!r}"
            closers = [token for token in tokens if pieces[token] in CLOSERS]
            if closers and random.randrange(CLOSING_BYTES) < len(output):
                tokens = closers
            token = random.choice(tokens)
            if self._model.is_eog(token):
                return output.decode()
            assert constraint.accept(token)
            output += pieces[token]
        return None


def _is_utf_8_prefix(data: bytes) -> bool:
    try:
        getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True
