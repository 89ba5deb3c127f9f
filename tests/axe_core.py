"""axe-core, which finds what keeps people who use a screen reader or a keyboard from using a page."""

from functools import cache
from typing import Any

import pytest
from thirteen.errors import ThirteenError
from thirteen.web.site import cached_archive, npm_files

_PACKAGE = "axe-core@4.14.1"
_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
_RUN = """async () => {
  const rules = { "target-size": { enabled: true } };
  const { violations } = await axe.run(document, { resultTypes: ["violations"], rules });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 120)} ${failureSummary}`));
}"""


@cache
def _script() -> str:
    try:
        return npm_files(cached_archive(_PACKAGE), _SHA512, ("axe.min.js",))["axe.min.js"].decode()
    except ThirteenError as error:
        pytest.skip(str(error))


def violations(page: Any) -> list[str]:
    """Violations of axe-core's rules, best practices included, on a page as it is now, one line each."""
    page.evaluate(_script())
    found: list[str] = page.evaluate(_RUN)
    return found
