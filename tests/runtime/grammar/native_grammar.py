"""llama.cpp's grammar sampler without a model: which texts a grammar accepts, and which it can produce."""

import ctypes
from codecs import getincrementaldecoder
from contextlib import contextmanager

import llama_cpp

BYTES, END = 256, 258  # of the tiny model: number of byte tokens, and the token that ends a turn


class NativeGrammar:
    """llama.cpp's grammar sampler on the tiny model's vocabulary, in which each byte is a token."""

    def __init__(self, model):
        self._vocabulary = llama_cpp.llama_model_get_vocab(model.handle)
        self._tokens = {model.token_to_piece(token): token for token in range(BYTES)}
        self._pieces = {token: piece for piece, token in self._tokens.items()} | {END: b""}

    @contextmanager
    def sampler(self, grammar):
        """Yield the sampler of a grammar; None if llama.cpp does not compile it."""
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
        """Return whether the whole text matches the grammar."""
        with self.sampler(grammar) as sampler:
            assert sampler, grammar.text
            for byte in text.encode():
                token = self._tokens[bytes((byte,))]
                if not self._allowed(sampler, [token]):
                    return False
                llama_cpp.llama_sampler_accept(sampler, token)
            return bool(self._allowed(sampler, [END]))

    def sample_text(self, grammar, random, max_bytes=400, closing=40):
        """Sample a random text that the grammar allows; None if it has not ended after `max_bytes` bytes.

        The text is valid UTF-8; llama.cpp also allows overlong encodings, which no model has seen. Over the
        first `closing` bytes it becomes certain that a string, object or array is closed when it can be.
        """
        output = b""
        with self.sampler(grammar) as sampler:
            assert sampler, grammar.text
            while len(output) < max_bytes:
                allowed = self._allowed(sampler, self._pieces)
                tokens = [token for token in allowed if _is_utf_8_prefix(output + self._pieces[token])]
                assert tokens, f"nothing may follow {output!r}"
                closers = [self._tokens[byte] for byte in (b'"', b"}", b"]")] + [END]
                ends = [token for token in tokens if token in closers]
                token = random.choice(ends if ends and random.randrange(closing) < len(output) else tokens)
                if token == END:
                    return output.decode()
                llama_cpp.llama_sampler_accept(sampler, token)
                output += self._pieces[token]
        return None


def _is_utf_8_prefix(data):
    try:
        getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True
