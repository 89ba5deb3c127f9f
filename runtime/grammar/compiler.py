"""Compilation of grammars by llguidance, within limits on time, memory and recursion."""

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from ...errors import RequestError, as_line
from ..deep_stack import with_deep_stack

# The library's units of work ("fuel") pass at about 50 per microsecond in a compile and 14 in a step.
LIMITS = LLParserLimits(
    max_items_in_row=2_000,  # parses of one text at once
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,
    step_max_items=50_000,
    max_lexer_states=20_000,  # of 1 to 2 kB each
    max_grammar_size=200_000,
    precompute_large_lexemes=True,
    verbose_errors=False,
)


def check_source(source: str, kind: str) -> None:
    """Raise RequestError if llguidance cannot compile a grammar in its own format; `kind` is the notation."""
    if message := with_deep_stack(lambda: LLMatcher.validate_grammar(source, limits=LIMITS)):
        raise RequestError(f"{kind}: {summary(message)}")


def compile_matcher(source: str, tokenizer: LLTokenizer) -> LLMatcher:
    """Compile a grammar for a vocabulary.

    Raises:
        RequestError: the grammar cannot be compiled within the limits, or allows no text.
    """

    def compile_and_begin() -> tuple[LLMatcher, bool]:
        matcher = LLMatcher(tokenizer, source, log_level=0, limits=LIMITS)
        return matcher, any(matcher.compute_bitmask())

    matcher, begins = with_deep_stack(compile_and_begin)
    message = summary(matcher.get_error())
    if message.startswith("NoExtension") or not (message or begins):
        message = "no text of this model's tokens matches it"
    if message:
        raise RequestError(f"grammar: {message}")
    return matcher


def summary(message: str) -> str:
    """Return the library's error message as one line."""
    line = as_line(message.removeprefix("ERROR: ").replace("<non-verbose/>", ""))
    return line if len(line) <= 200 else f"{line[:200]}…"
