"""What others made: pipes are refused at once, and so are links that lead outside a folder."""

import os
from pathlib import Path

import pytest
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header
from thirteen.files.json_file import read_json
from thirteen.files.received_files import check_links
from thirteen.files.safetensors import SafetensorsFile


@pytest.mark.parametrize("read", [read_json, read_header, SafetensorsFile])
def test_a_pipe_or_a_device_is_refused_at_once(read, tmp_path):
    """Opening the pipe waited for a writer; the device never ended."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FileError, match=f"{path}: not a regular file"):
            read(path)


@pytest.mark.parametrize("name", ["LICENSE", "chat_template.jinja", "additional_chat_templates/rag.jinja"])
def test_a_link_that_leads_outside_its_folder_is_refused(name, tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "base"
    (folder / name).parent.mkdir(parents=True)
    (folder / "inside").write_text("{}")
    (folder / "config.json").symlink_to("inside")
    check_links(folder)
    (tmp_path / "link").symlink_to("base")
    check_links(tmp_path / "link")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(FileError, match=f"{name}: leads outside the folder"):
        check_links(folder)


def test_a_snapshot_of_the_hubs_cache_leads_to_its_own_blobs_only(tmp_path):
    repository = tmp_path / "models--some--base"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for name in ("blobs/hash", "secret"):
        (repository / name).write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/hash")
    check_links(snapshot)
    (snapshot / "LICENSE").symlink_to("../../secret")
    with pytest.raises(FileError, match="LICENSE: leads outside"):
        check_links(snapshot)
