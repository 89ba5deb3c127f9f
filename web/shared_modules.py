"""JavaScript modules that run a model without a page."""

from pathlib import Path

from ..runtime.arithmetic.notation import PATH as NOTATION

_FOLDER = Path(__file__).with_name("shared")


def shared_modules() -> dict[str, bytes]:
    """Content of the modules by file name, with the tables of arithmetic as a module.

    The tables are no JSON there, because not every browser's modules can import JSON.
    """
    tables = b"export default " + NOTATION.read_bytes().strip() + b";\n"
    return {file.name: file.read_bytes() for file in sorted(_FOLDER.iterdir())} | {"notation.js": tables}
