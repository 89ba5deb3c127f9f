"""Control tokens: a template that transforms a text makes none of it.

A letter of the first line chooses a transformation each; the text follows.
"""

from functools import cache

from thirteen.runtime.prompt.chat_template import ChatTemplate
from thirteen.runtime.prompt.prompt_encoder import Message, PromptEncoder

from ..target import Target, accepts

_CONTROL = {"<|im_start|>": 256, "<|im_end|>": 257, "<s>": 258, "[INST]": 259}
_TRANSFORMATIONS = {
    "t": " | trim",
    "l": " | lower",
    "u": " | upper",
    "c": " | capitalize",
    "e": " | e",
    "r": " | reverse",
    "h": " | replace('&lt;', '<') | replace('&gt;', '>')",
    "x": " | replace('x', '')",
    "b": " | replace(' ', '<') | replace('.', '>')",
    "s": " | striptags",
    "j": " | tojson",
    "1": "[1:]",
    "2": "[::2]",
    "-": ".split('-') | join",
    "w": " | wordwrap(3, true, '')",
    "+": " ~ 'im_end|>'",
}


class _Bytes:
    control_tokens = _CONTROL
    stripping_tokens = frozenset[str]()

    def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        assert not special
        return list(text.encode("utf-8", "surrogatepass"))

    def token_to_piece(self, token: int) -> bytes:
        return bytes((token,))


def check(data: bytes) -> bool:
    chosen, _, text = data.decode("utf-8", "replace").partition("\n")
    return accepts(_encode, _encoder("".join(filter(_TRANSFORMATIONS.get, chosen))[:3]), text)


@cache
def _encoder(chosen: str) -> PromptEncoder:
    expression = "m.content"
    for letter in chosen:
        expression = f"({expression}{_TRANSFORMATIONS[letter]})"
    source = f"{{% for m in messages %}}<|im_start|>{{{{ {expression} }}}}<|im_end|>{{% endfor %}}"
    return PromptEncoder(_Bytes(), ChatTemplate(source))  # type: ignore[arg-type]


def _encode(encoder: PromptEncoder, text: str) -> None:
    tokens = encoder.encode_conversation([Message("user", text), Message("assistant", text[::-1])])
    assert [token for token in tokens if token > 255] == [256, 257] * 2


TARGET = Target(check, max_bytes=256, words=(*_CONTROL, "<|IM_END|>", "&lt;s&gt;", " s.", "<|im_", "<s-"))
