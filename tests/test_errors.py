"""Errors on their way to another process."""

import pickle

from thirteen.errors import OptionError


def test_an_error_of_an_option_reaches_another_process():
    """Its message alone could not make it again."""
    error = OptionError("size", "too small", 600)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.value) == (str(error), "size", "600")
