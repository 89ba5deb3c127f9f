"""KaTeX and markdown-it are those of the npm packages."""

from hashlib import sha256

import pytest
from thirteen.web.static_files import PAGE_FILES


@pytest.mark.parametrize("folder", ["katex/", "markdown-it/"])
def test_vendored_files_have_the_recorded_hashes(folder):
    found = {path.removeprefix(folder): file for path, file in PAGE_FILES.items() if path.startswith(folder)}
    lines = found.pop("SHA256SUMS").read_text().splitlines()
    recorded = dict(reversed(line.split("  ")) for line in lines if not line.startswith("#"))
    assert {path: sha256(file.read_bytes()).hexdigest() for path, file in found.items()} == recorded


def test_the_style_sheet_asks_only_for_fonts_that_are_there():
    """Browsers take the first format that they know, which is woff2 for all that can run the page."""
    css = PAGE_FILES["katex/katex.min.css"].read_text()
    first = [source.split(")")[0] for source in css.split("src:url(")[1:]]
    assert len(first) == 20 and all(f"katex/{path}" in PAGE_FILES for path in first)
