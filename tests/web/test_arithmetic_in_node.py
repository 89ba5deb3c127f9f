"""The site's arithmetic modules in Node.js: the vectors of the Python parser, and hostile text."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from thirteen.runtime.arithmetic.notation import PATH
from thirteen.web.site import write_site

from ..runtime.arithmetic.hostile_pieces import ANSWER_PIECES, EQUATION_PIECES
from .arithmetic_vectors import FILE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js")
CHECK = "(text) => checkClaim(text)"
SECONDS = """({ text, ends }) => {
  const start = performance.now();
  for (const end of ends) checkClaim(text + end);
  return (performance.now() - start) / 1000;
}"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: Any, write_tiny: Any) -> Path:
    folder = tmp_path_factory.mktemp("node")
    write_site(write_tiny(folder / "tiny.gguf"), folder / "site", {})
    (folder / "site/package.json").write_text('{"type": "module"}')
    return folder / "site"


def run(folder: Path, function: str, arguments: list[Any]) -> list[Any]:
    """Call a JavaScript function, which may use the site's modules, once for each argument."""
    script = f"""import {{ checkClaim }} from "./calculator.js";
import {{ readFileSync }} from "node:fs";
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map({function})));"""
    command = [str(NODE), "--input-type=module", "--eval", script]
    text = json.dumps(arguments)
    done = subprocess.run(
        command, cwd=folder, input=text, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result


def test_the_modules_read_answers_like_python(modules: Path) -> None:
    expected = json.loads(FILE.read_text("utf-8"))
    found = run(modules, CHECK, [vector["text"] for vector in expected])
    results = [{"text": vector["text"], **result} for vector, result in zip(expected, found, strict=True)]
    assert results == expected


@pytest.mark.slow
def test_time_is_linear_in_hostile_text(modules: Path) -> None:
    """Backtracking over 100 kB would take minutes. The limit is generous for busy machines."""
    pieces = list(dict.fromkeys((*EQUATION_PIECES, *ANSWER_PIECES)))
    texts = [{"text": piece * (100_000 // len(piece)), "ends": ["= 1", "x", "}"]} for piece in pieces]
    seconds = dict(zip(pieces, run(modules, SECONDS, texts), strict=True))
    assert max(seconds.values()) < 20, max(seconds, key=lambda piece: seconds[piece])


def test_the_tables_are_those_of_python(modules: Path) -> None:
    code = (modules / "notation.js").read_text("utf-8")
    assert json.loads(code.removeprefix("export default ").removesuffix(";\n")) == json.loads(
        PATH.read_text("utf-8")
    )
