"""Examples run as they stand, and are what the documents quote."""

import re
import runpy
from pathlib import Path
from typing import Any

import httpx
import pytest
from thirteen.learn.questions import masked_beginning
from thirteen.models.catalogue import adapter_folder
from thirteen.models.conversion import ConversionRequest
from thirteen.models.embedded import embedded
from thirteen.models.rows import read_rows
from thirteen.runtime.options import Options, Request

from ..background_server import background_server
from ..json_lines import write_rows
from ..waiting import wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
QUOTING = ("README.md", "docs/apps.md", "docs/convert.md", "docs/engine.md")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: a model, and adapters for it."""
    (tmp_path / "my-model.gguf").symlink_to(embedded())
    for name, shipped in (("my-lora", "smollm2-135m-sums-13"), ("my-other-lora", "smollm2-135m-sums-840")):
        (tmp_path / name).symlink_to(adapter_folder(shipped))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


@pytest.mark.parametrize("document", QUOTING)
def test_documents_quote_examples(document):
    """Each block of Python is a run of lines of an example, so that it is known to run."""
    sources = [_stripped(path.read_text("utf-8")) for path in EXAMPLES]
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)
    for block in blocks:
        assert any(_stripped(block) in source for source in sources), block


def _stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ask", r"12 \* 13 = 156"),
        ("stream_and_cancel", r"156: .*\ncancelled\n$"),
        pytest.param(
            "adapters_per_request",
            r"other: Tom has 12 \+ 6 = 18 eggs\..*\n18\n$",
            marks=pytest.mark.exhaustive,
        ),
        ("conversation", "pens.*pens"),  # the second answer knows of the first question
        pytest.param("votes", "agree on.*right with a probability of", marks=pytest.mark.exhaustive),
    ],
)
def test_an_example_says(name, said, folder, capsys):
    run(f"{name}.py")
    assert re.search(said, capsys.readouterr().out, re.DOTALL)


@pytest.mark.parametrize(
    ("task", "form", "first"),
    [
        ("my-orders", "json", '{"item": "pens", "count": 2, "price": 2, "total": 4}'),
        ("measures", "text", "1500 m"),
        ("spanish", "number", "2"),
    ],
)
def test_own_task(task, form, first, folder, monkeypatch):
    monkeypatch.setattr("sys.argv", ["own_task.py", f"{task}.jsonl"])
    run("own_task.py")
    rows = read_rows(Path(f"{task}.jsonl"), ("answer",), any_form=True)
    assert len({masked_beginning(row.question) for row in rows}) == 200 == len(rows)
    assert {row.form for row in rows} == {form} and rows[0].answer == first


@pytest.mark.exhaustive
def test_convert_to_size_and_compare_with_base(base, tmp_path, monkeypatch, capsys):
    from peft import LoraConfig
    from thirteen.bench.fidelity.conversion import run_conversion

    from ..convert.peft_adapters import save_random_adapter

    checkpoint = base("llama wide")
    monkeypatch.chdir(tmp_path)
    Path("my-base").symlink_to(checkpoint)
    save_random_adapter(checkpoint, LoraConfig(target_modules=["q_proj", "down_proj"]), Path("my-lora"))

    run("convert_to_size.py")
    output = capsys.readouterr().out
    assert f"{Path('my-model.gguf').stat().st_size:,} bytes" in output
    assert "tensors in " in output and "slope" in output

    run_conversion(ConversionRequest(base="my-base", type="F16", output=Path("my-base.gguf")).resolve())
    rows = ({"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(1, 9))
    write_rows(Path("questions.jsonl"), rows)
    run("compare_with_base.py")
    output = capsys.readouterr().out
    assert "Speed: " in output and "gained" in output


@pytest.mark.slow
def test_fastapi_app_streams_and_a_client_that_leaves_frees_its_slot(folder, monkeypatch):
    app = run("fastapi_app.py")["app"]
    with background_server(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        engine = app.state.engine
        assert client.get("/ask", params={"question": " "}).status_code == 400
        asked = {"question": "What is 12 * 13? Answer in one sentence."}
        with client.stream("GET", "/ask", params=asked) as response:
            pieces = list(response.iter_text())
        assert len(pieces) > 1 and "".join(pieces) == engine.answer(asked["question"]).text
        endless = Request(engine.encode_text("a"), Options(max_tokens=10**6, ignore_end=True))
        monkeypatch.setattr(engine, "request", lambda _: endless)
        with client.stream("GET", "/ask", params={"question": "Tell a long story."}) as response:
            text = response.iter_text()  # one without a name is closed at once, and its connection too
            next(text)
            assert engine.load.running == 1
        wait_until(lambda: engine.load.running == 0, timeout_s=20)  # the story would take minutes
    assert engine.closed
