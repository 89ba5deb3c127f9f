"""Reading within a limit: the content whatever its length."""

import pytest
from thirteen.errors import FileError
from thirteen.files.json_file import read_bounded


@pytest.mark.parametrize("length", [0, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_a_file_of_any_length_is_read_up_to_the_limit(tmp_path, length):
    data = bytes(range(256)) * (length // 256) + b"a" * (length % 256)
    (tmp_path / "a").write_bytes(data)
    assert read_bounded(tmp_path / "a", length) == data
    if length:
        with pytest.raises(FileError, match=r"a: more than [0-9,]+ bytes, the limit"):
            read_bounded(tmp_path / "a", length - 1)
