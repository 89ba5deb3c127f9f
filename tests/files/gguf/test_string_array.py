"""The strings of a GGUF array: as a list has them, but decoded one by one."""

import pickle
import struct
from array import array
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.files.gguf.string_array import StringArray


def string_array(values: list[bytes]) -> StringArray:
    ends = array("I", accumulate(8 + len(value) for value in values))
    return StringArray(b"".join(struct.pack("<Q", len(value)) + value for value in values), ends)


@given(st.lists(st.binary(max_size=4) | st.text(max_size=4).map(str.encode)), st.slices(6))
def test_an_array_reads_like_the_list_of_its_strings(values, part):
    strings, expected = string_array(values), [value.decode("utf-8", "surrogateescape") for value in values]
    assert list(strings) == expected
    assert [strings[i] for i in range(-len(values), len(values))] == expected * 2
    assert strings[part] == expected[part]
    assert strings == expected and expected == strings
    assert strings == pickle.loads(pickle.dumps(strings)) == string_array(values)
    assert strings != [*expected, "more"] and strings != string_array([*values, b""])
    assert len(strings) == len(values) and bool(strings) == bool(values)


def test_an_index_out_of_range_is_an_error_as_in_a_list():
    for index in (1, -2):
        with pytest.raises(IndexError):
            string_array([b"a"])[index]
