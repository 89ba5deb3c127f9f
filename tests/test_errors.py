"""Errors: the words of options in Python and on the command line, and the way to another process."""

import pickle

from thirteen.errors import OptionError


def test_an_option_is_named_as_in_python_or_by_other_words():
    error = OptionError("vocabulary_texts", "requires {vocabulary}, not {'a': 1}", 3)
    assert str(error) == "vocabulary_texts 3: requires vocabulary, not {'a': 1}"
    assert error.text(str.upper) == "VOCABULARY_TEXTS 3: requires VOCABULARY, not {'a': 1}"


def test_an_error_of_an_option_reaches_another_process():
    """Its message alone could not make it again."""
    error = OptionError("size", "too small", 600)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.value) == (str(error), "size", "600")
