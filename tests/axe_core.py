"""axe-core, which finds what keeps people who use a screen reader or a keyboard from using a page."""

import io
import tarfile
from functools import cache
from typing import Any

import pytest
from thirteen.errors import FileError
from thirteen.web.wllama import NpmArchive

_ARCHIVE = NpmArchive(
    "axe-core",
    "4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
)
_RUN = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 120)} ${failureSummary}`));
}"""


@cache
def _script() -> str:
    try:
        content = _ARCHIVE.read()
    except FileError as error:
        pytest.skip(str(error))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        file = tar.extractfile("package/axe.min.js")
        assert file
        return file.read().decode()


def violations(page: Any) -> list[str]:
    """Violations of axe-core's rules, best practices included, on a page as it is now, one line each."""
    page.evaluate(_script())
    found: list[str] = page.evaluate(_RUN)
    return found
