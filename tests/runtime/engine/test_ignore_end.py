"""What becomes of end-of-generation tokens: they end a request, are ignored, or are reported."""

from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Request, StopReason

EOS = 258


def run(engine, **options):
    *pieces, last = engine.submit(Request((1, 2, 3), max_tokens=7, **options))
    return [token for piece in (*pieces, last) for token in piece.tokens], last.answer


def test_a_model_that_only_ends_still_gives_max_tokens(ending):
    """A benchmark must not stop early."""
    with Engine(ending, context=64, slots=1, threads=1) as engine:
        tokens, end = run(engine)
        assert (tokens, end.stop_reason) == ([], StopReason.END)
        tokens, end = run(engine, ignore_end=True)
        assert (tokens, end.stop_reason) == ([EOS] * 7, StopReason.LENGTH)
        assert end.usage.completion_tokens == 7


def test_the_end_is_reported_with_its_log_probability(ending):
    with Engine(ending, context=64, slots=1, threads=1) as engine:
        (piece,) = engine.submit(Request((1, 2, 3), logprobs=1, report_end=True))
        assert (piece.text, piece.tokens, piece.answer.stop_reason) == ("", (), StopReason.END)
        ((token, logprob, ((likeliest, _),)),) = [(e.token, e.logprob, e.top) for e in piece.logprobs]
        assert token == likeliest == EOS and -0.5 < logprob <= 0
        (piece,) = engine.submit(Request((1, 2, 3), logprobs=1))
        assert piece.logprobs == ()
