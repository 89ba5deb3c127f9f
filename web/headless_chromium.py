"""Chromium without a window, on a page of this machine."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RequestError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_END_S = 10


def find_chromium() -> Path:
    """Path of the installed Chromium or Chrome.

    Raises:
        RequestError: none is on PATH.
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise RequestError(f"a browser is needed, but none of {', '.join(_NAMES)} is on PATH")


@contextmanager
def headless_chromium(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Open a page in a new profile; the browser ends with the block.

    Args:
        url: address of the page.

    Yields:
        The browser's process.

    Raises:
        RequestError: Chromium is not installed.
    """
    program = find_chromium()
    # Not in the cache folder: on Linux, Chromium puts a socket into the profile, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="thirteen-chromium-", ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--no-sandbox")  # Chromium's sandbox does not work for root
        command = [str(program), *options, url]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
