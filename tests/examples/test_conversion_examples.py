"""The examples that convert a base and an adapter, and compare the result with its base."""

import json
import runpy
from pathlib import Path

import pytest
from peft import LoraConfig
from thirteen.bench.fidelity.conversion import run_conversion
from thirteen.models.conversion import ConversionRequest

from ..convert.peft_adapters import save_random_adapter

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.exhaustive
def test_convert_to_size_and_compare_with_base(base, tmp_path, monkeypatch, capsys):
    checkpoint = base("llama wide")
    monkeypatch.chdir(tmp_path)
    Path("my-base").symlink_to(checkpoint)
    save_random_adapter(checkpoint, LoraConfig(target_modules=["q_proj", "down_proj"]), Path("my-lora"))

    runpy.run_path(str(EXAMPLES / "convert_to_size.py"))
    output = capsys.readouterr().out
    assert f"{Path('my-model.gguf').stat().st_size:,} bytes" in output
    assert "tensors in " in output and "slope" in output

    run_conversion(ConversionRequest(base="my-base", type="F16", output=Path("my-base.gguf")).resolve())
    questions = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(1, 9)]
    Path("questions.jsonl").write_text("\n".join(map(json.dumps, questions)), "utf-8")
    runpy.run_path(str(EXAMPLES / "compare_with_base.py"))
    output = capsys.readouterr().out
    assert "Speed: " in output and "gained" in output
