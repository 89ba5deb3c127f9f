"""Which tokens of a text a model has to choose, where the calculator puts in the results of sums."""

import pytest
from thirteen.runtime.engine.output_stream import sampled_mask


class Bytes:
    """A vocabulary of bytes."""

    def piece(self, token):
        return bytes((token,))

    def tokenize(self, text, *, special, bos):
        return list(text.encode())


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("12 * 5 = 60", " 60"),
        ("12*5=60.", "60"),
        ("12 * 5 = 61", ""),  # a wrong result is the text's own
        ("first 2 + 3 = 5, then 5 * 4 = 20 in all", " 5 20"),
        ("no sum at all", ""),
    ],
)
def test_results_of_sums_are_given_and_all_else_is_asked(text, given):
    found = sampled_mask(Bytes(), list(text.encode()))
    assert "".join(one for one, own in zip(text, found, strict=True) if not own) == given
