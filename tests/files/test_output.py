"""What goes wrong in writing is one line, and needs nothing that comes with an extra."""

import pytest
from thirteen.errors import OutputError
from thirteen.files.output import make_folder, output_folder


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    make_folder(tmp_path / "some" / "folder")
    make_folder(tmp_path / "some" / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/folder: cannot write: Not a directory"):
        make_folder(tmp_path / "file" / "folder")


def test_a_new_folder_without_a_file_is_removed_when_the_block_fails(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for folder in (tmp_path / "new", kept, tmp_path / "used"):
        with pytest.raises(OutputError), output_folder(folder):
            if folder.name == "used":
                (folder / "file").touch()
            raise OutputError("full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "used"]
