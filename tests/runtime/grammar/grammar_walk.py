"""llama.cpp's own reading of a grammar, without a model: what it accepts, and what it can lead to."""

import ctypes
from codecs import getincrementaldecoder
from contextlib import contextmanager

import llama_cpp

BYTES, END = 256, 258  # of the tiny model: the bytes, and the token that ends a turn


class Native:
    """The library's grammar sampler over the tiny model's vocabulary, in which each byte is a token."""

    def __init__(self, model):
        self._vocabulary = llama_cpp.llama_model_get_vocab(model.handle)
        self._tokens = {model.piece(token): token for token in range(BYTES)}
        self._pieces = {token: piece for piece, token in self._tokens.items()} | {END: b""}

    @contextmanager
    def reading(self, grammar):
        """The sampler of a grammar; None if the library does not take it."""
        text, root = grammar.text.encode(), grammar.root.encode()
        sampler = llama_cpp.llama_sampler_init_grammar(self._vocabulary, text, root)
        try:
            yield sampler
        finally:
            if sampler:
                llama_cpp.llama_sampler_free(sampler)

    def _allowed(self, sampler, tokens):
        data = [llama_cpp.llama_token_data(token, 0.0, 0.0) for token in tokens]
        array = (llama_cpp.llama_token_data * len(data))(*data)
        candidates = llama_cpp.llama_token_data_array(array, len(data), -1, False)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(candidates))
        return [entry.id for entry in array if entry.logit == 0.0]

    def accepts(self, grammar, text):
        """Whether the whole text follows the grammar."""
        with self.reading(grammar) as sampler:
            assert sampler, grammar.text
            for byte in text.encode():
                token = self._tokens[bytes((byte,))]
                if not self._allowed(sampler, [token]):
                    return False
                llama_cpp.llama_sampler_accept(sampler, token)
            return bool(self._allowed(sampler, [END]))

    def walk(self, grammar, random, most=400, closing=40):
        """A text that the grammar allows, chosen at random; None if it has not ended after `most` bytes.

        It is UTF-8: the library itself also lets overlong forms through, which no model has seen.
        """
        said = b""
        with self.reading(grammar) as sampler:
            assert sampler, grammar.text
            while len(said) < most:
                allowed = self._allowed(sampler, self._pieces)
                tokens = [token for token in allowed if _is_utf_8(said + self._pieces[token])]
                assert tokens, f"nothing may follow {said!r}"
                signs = [self._tokens[sign] for sign in (b'"', b"}", b"]")] + [END]
                ends = [token for token in tokens if token in signs]
                token = random.choice(ends if ends and random.randrange(closing) < len(said) else tokens)
                if token == END:
                    return said.decode()
                llama_cpp.llama_sampler_accept(sampler, token)
                said += self._pieces[token]
        return None


def _is_utf_8(data):
    """Whether it is, or may become."""
    try:
        getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True
