"""File hashes: SHA-256 everywhere."""

import hashlib
from pathlib import Path

from .received_files import open_regular


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
