r"""LaTeX as text for a terminal: `\(\frac{12}{4} \times 3\)` is 12/4 × 3."""
# ruff: noqa: RUF001, RUF002 - signs of mathematics

import re

_SYMBOLS = {
    **{"times": "×", "cdot": "·", "div": "÷", "pm": "±", "mp": "∓", "le": "≤", "leq": "≤", "ge": "≥"},
    **{"geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "equiv": "≡", "sim": "~", "infty": "∞", "circ": "°"},
    **{"to": "→", "rightarrow": "→", "Rightarrow": "⇒", "implies": "⇒", "therefore": "∴", "in": "∈"},
    **{"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "lambda": "λ", "mu": "μ"},
    **{"pi": "π", "sigma": "σ", "phi": "φ", "omega": "ω", "Delta": "Δ", "sum": "∑", "prod": "∏", "int": "∫"},
    **{"dots": "…", "ldots": "…", "cdots": "…", "quad": " ", "qquad": " ", "left": "", "right": ""},
}
_GROUP = r"\s*\{([^{}]*)\}"
_COMMANDS = [
    (re.compile(rf"\\[dt]?frac{_GROUP}{_GROUP}"), lambda m: f"{_whole(m[1])}/{_whole(m[2])}"),
    (re.compile(rf"\\sqrt{_GROUP}"), lambda m: f"√{_whole(m[1])}"),
    (re.compile(rf"\\(?:boxed|text\w*|math\w+|operatorname){_GROUP}"), lambda m: m[1]),
    (re.compile(rf"([\^_]){_GROUP}"), lambda m: "°" if m[2] == r"\circ" else f"{m[1]}{_whole(m[2])}"),
]
_FORMULA = re.compile(r"\$([^$]*\\[A-Za-z][^$]*)\$")  # an amount of money has no command
_MARKS = re.compile(r"\\[()\[\]]|\$\$|\\(?:begin|end)\{\w+\*?\}|\\\\$|&(?==)")


def latex_text(line: str) -> str:
    """A line with the commands, marks and delimiters of LaTeX as text; what is not known stays."""
    line, before = _FORMULA.sub(r"\1", _MARKS.sub("", line)), ""
    while line != before:  # from the innermost group outwards
        before = line
        for pattern, text in _COMMANDS:
            line = pattern.sub(text, line)
    line = re.sub(r"\\([A-Za-z]+)", lambda m: _SYMBOLS.get(m[1], m[0]), line.replace(r"^\circ", "°"))
    return re.sub(r"\\([,;:! %$#&_{}])", lambda m: " " if m[1] in ",;: " else m[1].strip("!"), line)


def _whole(text: str) -> str:
    """A part of a fraction, in parentheses if it is more than one word or number."""
    text = text.strip()
    return text if re.fullmatch(r"-?[\w.,]*|\\[A-Za-z]+", text) else f"({text})"
