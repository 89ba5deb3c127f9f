"""The files of KaTeX are those of the npm package."""

from hashlib import sha256

from thirteen.web.static_files import PAGE_FILES

FOLDER = "katex/"
RECORD = f"{FOLDER}SHA256SUMS"


def test_files_of_katex_have_the_recorded_hashes() -> None:
    lines = PAGE_FILES[RECORD].read_text().splitlines()
    recorded = dict(reversed(line.split("  ")) for line in lines if not line.startswith("#"))
    found = {path.removeprefix(FOLDER): file for path, file in PAGE_FILES.items() if path.startswith(FOLDER)}
    found.pop("SHA256SUMS")
    assert {path: sha256(file.read_bytes()).hexdigest() for path, file in found.items()} == recorded
    assert len(recorded) == 23


def test_the_style_sheet_asks_only_for_fonts_that_are_there() -> None:
    """Browsers take the first format that they know, which is woff2 for all that can run the page."""
    css = PAGE_FILES["katex/katex.min.css"].read_text()
    first = [source.split(")")[0] for source in css.split("src:url(")[1:]]
    assert len(first) == 20 and all(FOLDER + path in PAGE_FILES for path in first)
