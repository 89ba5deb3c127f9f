"""JavaScript modules that run a model without a page."""

import json
from dataclasses import asdict
from pathlib import Path

from ..runtime.arithmetic.notation import PATH as NOTATION
from ..runtime.effort import CONFIDENCE, Effort
from ..runtime.prompt.worked_examples import WORKED_EXAMPLES
from ..runtime.request import Sampling

_FOLDER = Path(__file__).with_name("shared")


def shared_modules() -> dict[str, bytes]:
    """Content of the modules by file name, with what Python shares with them as modules.

    These are no JSON there, because not every browser's modules can import JSON.
    """
    rules = {effort: asdict(effort.rule) for effort in Effort}
    efforts = {
        "rules": rules,
        "examples": WORKED_EXAMPLES,
        "temperature": Sampling().stochastic.temperature,
        "confidence": CONFIDENCE,
    }
    tables = {"notation.js": NOTATION.read_bytes().strip(), "effort.js": json.dumps(efforts).encode()}
    modules = {name: b"export default " + content + b";\n" for name, content in tables.items()}
    return {file.name: file.read_bytes() for file in sorted(_FOLDER.iterdir())} | modules
