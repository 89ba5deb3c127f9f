"""The JavaScript package: its files, its checks in Node.js, and its answers in Chromium."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from thirteen.errors import OutputError
from thirteen.runtime.arithmetic.notation import PATH
from thirteen.web.npm_package import write_package
from thirteen.web.static_server import background_server

from ..chromium import BROWSER_TEST
from ..runtime.arithmetic.hostile_pieces import ANSWER_PIECES, EQUATION_PIECES
from .arithmetic_vectors import FILE
from .faulty_app import FaultyApp

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")
NODE_TEST = pytest.mark.skipif(NODE is None, reason="needs Node.js")
ENGINE = {"index.min.js": b"export class Wllama {}", "wllama.wasm": b"\0asm", "LICENCE": b"MIT"}
CHECK = "(text) => thirteen.checkClaim(text)"
SECONDS = """({ text, ends }) => {
  const start = process.cpuUsage();
  for (const end of ends) thirteen.checkClaim(text + end);
  return process.cpuUsage(start).user / 1e6;
}"""
ERROR = """async (url) => thirteen.load(url).then(() => "loaded", (error) =>
  `${error instanceof thirteen.LoadError} ${error.message}`)"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the package is installed, with a wllama that does nothing."""
    folder = tmp_path_factory.mktemp("installed")
    write_package(folder / "node_modules/thirteen-web", ENGINE)
    return folder


def run_node(folder: Path, function: str, arguments: list[Any]) -> list[Any]:
    """Call a JavaScript function once for each argument; the package is `thirteen` in it."""
    script = f"""import * as thirteen from "thirteen-web";
import {{ readFileSync }} from "node:fs";
const results = JSON.parse(readFileSync(0, "utf8")).map({function});
console.log(JSON.stringify(await Promise.all(results)));"""
    command = [str(NODE), "--input-type=module", "--eval", script]
    done = subprocess.run(
        command,
        cwd=folder,
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result


def test_every_import_and_every_type_is_in_the_package(installed: Path) -> None:
    folder = installed / "node_modules/thirteen-web"
    modules = {path.name: path.read_text("utf-8") for path in folder.glob("*.*js")}
    for name, code in modules.items():
        for imported in re.findall(r'(?:from |import\()"(\./[^"]+)"', code):
            assert (folder / imported).is_file(), (name, imported)
    exported = set(re.findall(r"export (?:async )?function (\w+)", modules["index.js"]))
    for names in re.findall(r"export \{([^}]*)\}", modules["index.js"]):
        exported |= {name.strip() for name in names.split(",")}
    types = (folder / "index.d.ts").read_text("utf-8")
    assert exported == set(re.findall(r"export (?:function|class) (\w+)", types))
    assert json.loads((folder / "package.json").read_text())["version"] == version("thirteen")
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    package = write_package(tmp_path / "new", ENGINE)
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert (package.files, package.nbytes) == (len(files), sum(path.stat().st_size for path in files))
    assert write_package(tmp_path / "new", ENGINE) == package
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/package.json").write_text('{"name": "mine"}')
    with pytest.raises(OutputError, match="mine: contains files of something else"):
        write_package(tmp_path / "mine", ENGINE)
    with pytest.raises(OutputError, match=r"package\.json"):
        write_package(tmp_path / "mine/package.json/folder", ENGINE)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["package.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "web: give MODEL, or --npm"),
        (("m.gguf", "--npm", "x"), "--npm goes without MODEL"),
        (("--npm", "x", "--serve"), "--npm goes without MODEL"),
        (("--npm", "x", "--wllama", "absent.tgz"), "absent.tgz: No such file"),
    ],
)
def test_bad_options_are_a_one_line_error(options: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "thirteen", "web", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_npm_packs_every_file(installed: Path, tmp_path: Path) -> None:
    folder = installed / "node_modules/thirteen-web"
    command = ["npm", "pack", "--json", "--pack-destination", str(tmp_path), str(folder)]
    packed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (report,) = packed.values() if isinstance(packed, dict) else packed
    names = {file["path"] for file in report["files"]}
    assert names == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert (tmp_path / f"thirteen-web-{version('thirteen')}.tgz").is_file()


@NODE_TEST
def test_checks_in_node_are_those_of_python(installed: Path) -> None:
    expected = json.loads(FILE.read_text("utf-8"))
    found = run_node(installed, CHECK, [vector["text"] for vector in expected])
    results = [{"text": vector["text"], **result} for vector, result in zip(expected, found, strict=True)]
    assert results == expected


@NODE_TEST
@pytest.mark.slow
def test_time_is_linear_in_hostile_text(installed: Path) -> None:
    """Backtracking over 50 kB would take minutes of the processor."""
    pieces = list(dict.fromkeys((*EQUATION_PIECES, *ANSWER_PIECES)))
    texts = [{"text": piece * (50_000 // len(piece)), "ends": ["= 1", "}"]} for piece in pieces]
    seconds = dict(zip(pieces, run_node(installed, SECONDS, texts), strict=True))
    assert max(seconds.values()) < 10, max(seconds, key=lambda piece: seconds[piece])


def test_the_tables_are_those_of_python(installed: Path) -> None:
    code = (installed / "node_modules/thirteen-web/notation.js").read_text("utf-8")
    tables = json.loads(code.removeprefix("export default ").removesuffix(";\n"))
    assert tables == json.loads(PATH.read_text("utf-8"))


@NODE_TEST
def test_what_cannot_be_loaded_in_node_is_a_sentence(installed: Path, tmp_path: Path) -> None:
    """An older Node.js says so first; a newer one looks at the address."""
    (tmp_path / "model.json").write_text('{"name": "x"}')
    addresses = [f"{tmp_path.as_uri()}/", f"{tmp_path.as_uri()}/absent/"]
    old = re.compile(r"true The model requires Node\.js 24 or newer, not v\d+\.\d+\.\d+; .*")
    damaged, absent = run_node(installed, ERROR, addresses)
    assert old.fullmatch(damaged) or damaged.endswith("model.json describes none.")
    assert old.fullmatch(absent) or "no such file" in absent


VOTES = """async (answers) => {
  const { Model } = await import("./node_modules/thirteen-web/model.js");
  async function createChatCompletion({ seed, onData }) {
    const [content, finish_reason] = answers[seed];
    onData({ choices: [{ delta: { content } }] });
    onData({ choices: [{ finish_reason }] });
  }
  const model = new Model({ createChatCompletion }, { name: "fake", context: 512 });
  const { value, tally } = await model.answer("1 + 1", { votes: answers.length });
  return [value, tally.votes, tally.ended];
}"""


CUT, FIVE, SIX = ["The answer is 7.", "length"], ["The answer is 5.", "stop"], ["4 + 2 = 6", "stop"]
CUT_SIX = ["4 + 2 = 6", "length"]
NONE = ["I do not know.", "stop"]


@NODE_TEST
@pytest.mark.parametrize(
    ("answers", "value", "votes", "ended"),
    [
        pytest.param([CUT, CUT, FIVE], "5", {"5": 1}, 3, id="answers that were cut off have no vote"),
        pytest.param([CUT, CUT], "7", {"7": 2}, 2, id="without any vote all answers count"),
        pytest.param([CUT, CUT_SIX], "6", {"6": 1, "7": 1}, 2, id="without any vote a verified value wins"),
        pytest.param([NONE, NONE, CUT], None, {"7": 1}, 3, id="without any vote even no value may win"),
        pytest.param([FIVE, SIX, CUT], "6", {"6": 1, "5": 1}, 3, id="a verified value wins a tie"),
        pytest.param([FIVE, FIVE, SIX, SIX, SIX], "6", {"6": 3, "5": 2}, 5, id="most votes win"),
        pytest.param([FIVE, FIVE, FIVE, SIX, SIX], "5", {"5": 3}, 3, id="a decided vote ends"),
        pytest.param(
            [FIVE, FIVE, SIX, SIX], "6", {"6": 2, "5": 2}, 4, id="a vote that may yet be tied goes on"
        ),
    ],
)
def test_a_vote_is_the_engines(installed: Path, answers, value, votes, ended) -> None:
    assert run_node(installed, VOTES, [answers]) == [[value, votes, ended]]


ABORTED = """async (text) => {
  const { Model } = await import("./node_modules/thirteen-web/model.js");
  const createChatCompletion = ({ abortSignal, onData }) => new Promise((_, reject) => {
    abortSignal.addEventListener("abort", () => reject(new Error("Operation aborted")));
    onData({ choices: [{ delta: { content: text } }] });
  });
  const model = new Model({ createChatCompletion }, { name: "fake", context: 512 });
  const stop = new AbortController();
  try {
    for await (const _ of model.ask("1 + 1", { signal: stop.signal })) stop.abort();
  } catch (error) { return error.name; }
}"""


@NODE_TEST
def test_an_abort_is_no_failure_of_the_model(installed: Path) -> None:
    """It was a ModelError, while an aborted load threw an AbortError."""
    assert run_node(installed, ABORTED, ["2"]) == ["AbortError"]


FETCHES = """async (fault) => {
  const { modelBlob } = await import("./node_modules/thirteen-web/parts.js");
  const failure = new TypeError("fetch failed", { cause: new Error("no such file") });
  const failing = new ReadableStream({ pull: () => Promise.reject(failure) });
  const get = async () => {
    if (fault === "request") throw failure;
    return new Response(fault === "body" ? failing : "content");
  };
  const onProgress = () => { if (fault === "progress") throw new RangeError("of the caller"); };
  const model = { sha256: "0", parts: [{ name: "parts/a.bin", sha256: "0" }] };
  const { signal } = new AbortController();
  return modelBlob(model, "http://localhost/", signal, onProgress, get).catch((error) =>
    `${error.constructor.name} ${error.message}`);
}"""


@NODE_TEST
def test_a_failed_download_tells_why(installed: Path) -> None:
    """All was an unreachable network: a missing file, and an error of the caller's onProgress too."""
    request, body, progress = run_node(installed, FETCHES, ["request", "body", "progress"])
    cause = "A part of the model cannot be fetched, parts/a.bin: no such file."
    assert request == body == f"LoadError {cause} Check the connection and try again."
    assert progress == "RangeError of the caller"


@NODE_TEST
@pytest.mark.parametrize("address", ["public/model", "/model/", "mailto:model", "http://"])
def test_what_is_no_address_is_a_sentence(installed: Path, address: str) -> None:
    """It was a TypeError of URL."""
    (found,) = run_node(installed, ERROR, [address])
    assert (
        found == f"true There is no model at {address}: give a whole address, such as https://host/folder/."
    )


DESCRIPTIONS = """async (body) => {
  const { fetchDescription } = await import("./node_modules/thirteen-web/description.js");
  const get = async () => new Response(body);
  return fetchDescription("http://localhost/", new AbortController().signal, get).then(
    ({ name }) => name, (error) => `${error instanceof thirteen.LoadError} ${error.message}`);
}"""


@NODE_TEST
def test_what_describes_no_model_is_a_sentence(installed: Path) -> None:
    """A host's page for missing files, and null, were other errors on the web page."""
    good = {
        **{"name": "x", "sha256": "0", "file_bytes": 1, "needed_bytes": 1, "context": 1},
        "parts": [{"name": "parts/a.bin", "sha256": "0"}],
    }
    bad = [json.dumps(good | {"parts": [{}]}), "<!doctype html>", "null", "{}"]
    found = run_node(installed, DESCRIPTIONS, [json.dumps(good), *bad])
    none = "true There is no model at http://localhost/: model.json describes none."
    assert found == ["x", none, none, none, none]


BOTH = """async () => {
  const { createRequire } = await import("node:module");
  const { asBrowser } = createRequire(process.cwd() + "/")("./node_modules/thirteen-web/node.cjs");
  const names = () => ["self", "location", "Worker"].filter((name) => name in globalThis);
  let end;
  const first = asBrowser(() => new Promise((resolve) => (end = resolve)));
  const second = asBrowser(() => first.then(names));
  end();
  return [await second, names()];
}"""


@NODE_TEST
def test_the_names_of_a_browser_stay_until_the_last_load_has_ended(installed: Path) -> None:
    """The first of two loads to end deleted them under the other."""
    assert run_node(installed, BOTH, [None]) == [[["self", "location", "Worker"], []]]


IN_BROWSER = """async (work) => {
  const thirteen = await import("/package/index.js");
  const load = (...options) => thirteen.load("/site/", ...options);
  const errorOf = (promise) =>
    promise.then(() => null, (error) => `${error.constructor.name} ${error.message}`);
  const collect = async (pieces) => {
    const all = [];
    for await (const piece of pieces) all.push(piece);
    return all;
  };
  const tools = { thirteen, load, errorOf, collect };
  return new Function(...Object.keys(tools), `return (${work})()`)(...Object.values(tools));
}"""

ANSWERS = """async () => {
  const model = await load();
  const pieces = model.ask("1 + 1");
  let [text, result] = ["", null];
  while (!(result = await pieces.next()).done) text += result.value;
  const events = await collect(model.events("1 + 1"));
  const answer = await model.answer("1 + 1", { votes: 2, turns: [{ question: "2 + 2", answer: "4" }] });
  await model.close();
  return { text, result: result.value, kinds: [...new Set(events.map(({ event }) => event))], answer };
}"""

STOPS = """async () => {
  const model = await load();
  const began = [];
  for await (const piece of model.ask("1 + 1")) { began.push(piece); if (began.length === 2) break; }
  const stop = new AbortController();
  const aborted = errorOf((async () => {
    for await (const piece of model.ask("1 + 1", { signal: stop.signal })) stop.abort();
  })());
  const error = await aborted;
  const whole = await model.answer("1 + 1");
  const pending = model.ask("1 + 1");
  await pending.next();
  const busy = await errorOf(model.answer("2 + 2"));
  await pending.return();
  const again = await model.answer("1 + 1");
  await model.close();
  const closed = await errorOf(model.answer("1 + 1"));
  const same = whole.text === again.text;
  return { began: began.length, error, same, characters: whole.text.length, busy, closed };
}"""

LOADS = """async () => {
  const progress = [];
  const first = await load({ onProgress: (done, total) => progress.push([done, total]) });
  await first.close();
  const second = await load();
  await second.close();
  const online = fetch;
  const isModel = (address) => /\\.(json|bin)$/.test(address);
  globalThis.fetch = (address, ...options) =>
    isModel(address) ? Promise.reject(new TypeError("Failed to fetch")) : online(address, ...options);
  const offline = await load();
  await offline.close();
  const unknown = await errorOf(thirteen.load("/absent/"));
  globalThis.fetch = online;
  const stopped = AbortSignal.abort();
  return {
    progress: progress.at(-1),
    unknown,
    absent: await errorOf(thirteen.load("/absent/")),
    aborted: await errorOf(load({ signal: stopped })),
    claim: thirteen.checkClaim("12 * 13 = 156"),
  };
}"""


@pytest.fixture
def server(small: Path, wllama: dict[str, bytes], tmp_path: Path) -> Iterator[tuple[str, FaultyApp]]:
    """An app's own page, with the package and a model's folder beside it."""
    (tmp_path / "index.html").write_text("<!doctype html><title>app</title><link rel=icon href='data:,'>")
    shutil.copytree(small, tmp_path / "site")
    write_package(tmp_path / "package", wllama)
    faulty = FaultyApp(tmp_path)
    with background_server(faulty) as address:
        yield address, faulty


@pytest.mark.browser
class TestInChromium:
    pytestmark = BROWSER_TEST

    def test_pieces_join_to_the_answer(
        self, server: tuple[str, FaultyApp], visit: Callable[..., Any]
    ) -> None:
        found = visit(server[0]).evaluate(IN_BROWSER, ANSWERS)
        assert found["text"] == found["result"]["text"] != ""
        assert found["result"]["model"] == "tiny"
        assert {"text", "answer"} <= set(found["kinds"]) <= {"text", "step", "answer"}
        assert found["answer"]["tally"]["asked"] == 2
        assert found["answer"]["dropped_turns"] == 0
        types = (ROOT / "web/npm/index.d.ts").read_text("utf-8")
        fields = re.findall(r"^  (\w+)\??:", types.partition("interface Answer")[2].partition("\n}")[0], re.M)
        assert found["result"].keys() == {*fields, "steps", "value", "verified"}

    def test_a_reader_that_leaves_stops_the_model(
        self, server: tuple[str, FaultyApp], visit: Callable[..., Any]
    ) -> None:
        found = visit(server[0]).evaluate(IN_BROWSER, STOPS)
        assert found["began"] == 2
        assert found["error"].startswith("DOMException ")
        assert found["same"] and found["characters"] > 0
        assert found["busy"] == "ModelError The model is answering another question."
        assert found["closed"] == "ModelError The model is closed."

    def test_the_second_load_needs_no_download_and_the_third_no_network(
        self, server: tuple[str, FaultyApp], visit: Callable[..., Any]
    ) -> None:
        address, faulty = server
        found = visit(address).evaluate(IN_BROWSER, LOADS)
        assert found["progress"][0] == found["progress"][1] > 0
        assert sum(path.endswith(".bin") for path in faulty.paths) == 1
        assert found["absent"].startswith("LoadError There is no model at ")
        assert found["absent"].endswith("/absent/: model.json has status 404.")
        assert "cannot be read: Failed to fetch." in found["unknown"]
        assert found["aborted"].startswith("DOMException")
        assert found["claim"]["steps"][0]["ok"]

    def test_damage_is_a_sentence(self, server: tuple[str, FaultyApp], visit: Callable[..., Any]) -> None:
        address, faulty = server
        page = visit(address)
        error = "async () => errorOf(load())"
        faulty.faults[".bin"] = lambda: Response(b"damaged")
        assert "is damaged on the server" in page.evaluate(IN_BROWSER, error)
        for content in ("{", "[]", '{"name": "x"}'):
            faulty.faults["model.json"] = lambda content=content: Response(content)
            assert page.evaluate(IN_BROWSER, error).endswith("model.json describes none.")
        description = {
            "name": "x",
            "sha256": "",
            "file_bytes": 3_000_000_000,
            "needed_bytes": 1,
            "context": 1,
        }
        faulty.faults["model.json"] = lambda: Response(json.dumps(description | {"parts": []}))
        assert "The model file has 3.0 GB" in page.evaluate(IN_BROWSER, error)
