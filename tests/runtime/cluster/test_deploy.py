"""Deployment on platforms that lack what Linux has."""

import subprocess
import sys

WITHOUT_SIGHUP = """
import signal
del signal.SIGHUP  # as on Windows
from thirteen.cli import serve
from thirteen.runtime.cluster import deploy
print([number.name for number in deploy._SIGNALS])
"""


def test_serve_is_imported_where_sighup_does_not_exist() -> None:
    """`thirteen serve` imports this module whether or not --ray is given."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_SIGHUP], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['SIGINT', 'SIGTERM']\n", "")
