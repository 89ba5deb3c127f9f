"""Translation of GBNF, llama.cpp's notation of grammars, to llguidance's variant of Lark.

A rule that refers to no other, or only to such rules, becomes a terminal, which matches as much as it can.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Never

from ...errors import RequestError

NESTING_MAX = 28  # parentheses; llguidance allows no more

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\#[^\r\n]*)
    |(?P<newline>\r\n?|\n)
    |(?P<name>[A-Za-z0-9_-]+)
    |(?P<define>::=)
    |(?P<literal>"(?:[^"\\]|\\.)*")
    |(?P<set>\[(?:[^]\\]|\\.)*\])
    |(?P<any>\.)
    |(?P<open>\()
    |(?P<close>\))
    |(?P<or>\|)
    |(?P<repeat>[*+?]|\{\s*(?P<low>[0-9]{1,9})\s*(?P<comma>,\s*(?P<high>[0-9]{1,9})?\s*)?\})
    |(?P<unknown>.)""",
    re.VERBOSE | re.DOTALL,
)
_UNKNOWN = {
    '"': "a literal is not closed",
    "[": "a set is not closed",
    "{": "a repetition must be like {2}, {2,} or {2,9}",
    **dict.fromkeys("<!", "tokens cannot be enforced"),
}
_HEAD = "a rule must begin a line, as in `name ::= …`"
_ESCAPE = r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|(?s:.))"
_RANGE = rf"({_ESCAPE}|(?s:.))(?:-({_ESCAPE}|(?s:.)))?"
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", **{sign: sign for sign in '"\\[]-'}}


class _Token(NamedTuple):
    """Part of a grammar; its kind is the name of a group of _TOKEN, and lines count from 1."""

    kind: str
    match: re.Match[str]
    line: int

    @property
    def text(self) -> str:
        return self.match[0]

    def fail(self, message: str) -> Never:
        raise RequestError(f"grammar: line {self.line}: {message}")


def gbnf_to_lark(text: str) -> str:
    """Translate a grammar, whose root rule becomes `start`.

    Raises:
        RequestError: the grammar is malformed, or refers to tokens.
    """
    rules = {rule[0].text: rule[2:] for rule in _rules(text)}  # the last of a name counts, as in llama.cpp
    if "root" not in rules:
        raise RequestError("grammar: there is no rule 'root'")
    references = {
        name: {token.text for token in body if token.kind == "name"} for name, body in rules.items()
    }
    terminals: set[str] = set()
    while new := {name for name in rules.keys() - terminals - {"root"} if references[name] <= terminals}:
        terminals |= new
    names = {name: f"{'T' if name in terminals else 'r'}{index}" for index, name in enumerate(rules)}
    names["root"] = "start"
    return "\n".join(f"{names[name]}: {' '.join(_translate(body, names))}" for name, body in rules.items())


def _rules(text: str) -> Iterator[list[_Token]]:
    """Yield the tokens of each rule. A newline ends it, but not within parentheses or after "::=" and "|"."""
    rule: list[_Token] = []
    opened: list[_Token] = []
    for token in _tokens(f"{text}\n"):
        if token.kind == "newline":
            if len(rule) > 1 and not opened and rule[-1].kind not in ("define", "or"):
                yield rule
                rule = []
            continue
        rule.append(token)
        if (token.kind == "define") != (len(rule) == 2) or rule[0].kind != "name":
            (opened[-1] if opened else token).fail("'(' is not closed" if opened else _HEAD)
        if token.kind == "open":
            opened.append(token)
        elif token.kind == "close" and not (opened and opened.pop()):
            token.fail("')' closes nothing")
        if len(opened) > NESTING_MAX:
            token.fail(f"more than {NESTING_MAX} parentheses are open")
    if opened:
        opened[-1].fail("'(' is not closed")
    if len(rule) == 1:
        rule[0].fail(_HEAD)
    if rule:
        yield rule


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        token = _Token(match.lastgroup or "", match, line)
        if token.kind == "unknown":
            token.fail(_UNKNOWN.get(token.text, f"{token.text!r} is not expected"))
        if token.kind != "space":
            yield token
        line += len(re.findall(r"\r\n?|\n", token.text))


def _translate(body: Sequence[_Token], names: Mapping[str, str]) -> list[str]:
    """Translate what a rule stands for, given the names of all rules in Lark."""
    output: list[str] = []
    opened: list[int] = []  # positions of the open parentheses in the output
    item: int | None = None  # where the item before the next token begins; None if there is none
    for token in body:
        if token.kind == "repeat":
            if item is None:
                token.fail(f"{token.text!r} repeats nothing")
            output[item:] = _repeated(output[item:], token)
        elif token.kind == "open":
            opened.append(len(output))
            output.append("(")
            item = None
        elif token.kind in ("close", "or"):
            output += ['""'] * (item is None) + [token.text]
            item = opened.pop() if token.kind == "close" else None
        else:
            item = len(output)
            output.append(_atom(token, names))
    return output + ['""'] * (item is None)


def _repeated(item: list[str], token: _Token) -> list[str]:
    low, comma, high = token.match.group("low", "comma", "high")
    high = high or ("" if comma else low)
    if not low:
        repetition = token.text
    elif high and int(high) < int(low):
        token.fail(f"{token.text!r} has its bounds in the wrong order")
    elif high and not int(high):
        return ['""']
    else:
        repetition = f"{{{low},{high}}}"
    return [*(["(", *item, ")"] if item[-1][0] in "*+?{" else item), repetition]


def _atom(token: _Token, names: Mapping[str, str]) -> str:
    """Translate a name, a literal, a set or a full stop."""
    if token.kind == "name":
        return names.get(token.text) or token.fail(f"rule {token.text[:40]!r} not found")
    if token.kind == "any":
        return "/(?s:.)/"
    if token.kind == "literal":
        return json.dumps(re.sub(_ESCAPE, lambda match: _character(match[0], token), token.text[1:-1]))
    negated, content = token.text.startswith("[^"), token.text[1:-1].removeprefix("^")
    if not content:
        token.fail(f"the set {token.text} is empty")
    ranges = [_range(match[1], match[2] or match[1], token) for match in re.finditer(_RANGE, content)]
    return f"/[{'^' * negated}{''.join(ranges)}]/"


def _range(low: str, high: str, token: _Token) -> str:
    first, last = ord(_character(low, token)), ord(_character(high, token))
    if first > last:
        token.fail(f"the range {f'{low}-{high}'!r} has its ends in the wrong order")
    return rf"\x{{{first:x}}}-\x{{{last:x}}}"


def _character(text: str, token: _Token) -> str:
    """The character that an escape or a character stands for."""
    if len(text) == 1:
        return text
    code = int(text[2:] or "0", 16)
    if (len(text) == 2 and text[1] not in _ESCAPED) or code > 0x10FFFF or 0xD800 <= code < 0xE000:
        token.fail(f"{text!r} is no escape of a character")
    return chr(code) if len(text) > 2 else _ESCAPED[text[1]]
