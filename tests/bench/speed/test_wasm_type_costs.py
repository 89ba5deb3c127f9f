"""Costs in a browser, by the real wllama in a real Chromium. Nothing depends on the speed of the machine."""

import pytest
from thirteen.bench.speed.browser_models import browser_models
from thirteen.bench.speed.probe_models import ProbeShape
from thirteen.bench.speed.type_costs import type_costs_table, write_costs
from thirteen.bench.speed.wasm_type_costs import run_wasm_type_costs
from thirteen.convert.quantize.costs import PARTS, read_costs
from thirteen.errors import DownloadError, ModelFileError, OutputError, RequestError
from thirteen.web.wllama import VERSION, wllama_files

from ...chromium import CHROMIUM

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
TINY = ProbeShape(hidden=256, ffn=256, heads=4, kv_heads=2, head_dim=64, layers=1, vocabulary=1024)


@pytest.fixture(scope="module", autouse=True)
def wllama():
    try:
        wllama_files()
    except DownloadError as error:
        pytest.skip(str(error))


@pytest.fixture
def chromium(tmp_path, monkeypatch):
    """chromium(script): a shell script takes the place of Chromium."""

    def replace(script):
        program = tmp_path / "chromium"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return replace


@pytest.mark.browser
@pytest.mark.slow
@needs_chromium
def test_a_report_becomes_a_table_for_wasm(tmp_path):
    ticks = []
    report = run_wasm_type_costs(
        types=["Q8_0"], rounds=8, shape=TINY, progress=lambda done, total: ticks.append((done, total))
    )
    assert [cost.type for cost in report.costs] == ["Q4_K", "Q8_0"]
    assert ticks[-1] == (50, 50)  # 5 models: loaded, warmed up, eight rounds
    assert report.engine.startswith(f"wllama {VERSION}, ") and "Chrom" in report.engine
    assert report.settings.threads > 0
    path = tmp_path / "costs.json"
    write_costs(report, path)
    table = read_costs(path)
    assert (table.target, table.build) == ("wasm", report.engine)
    for part in ("layer", "output", "layer_prefill"):
        assert set(getattr(table, part)) == {"Q4_K", "Q8_0"}
    assert not any(getattr(table, part) for part in PARTS if part.endswith("together"))
    with pytest.raises(OutputError, match="one sequence at a time"):
        table.together()
    assert "by wllama" in type_costs_table(report).caption


@pytest.mark.browser
@needs_chromium
def test_a_file_that_is_no_model_is_an_error(tmp_path):
    with browser_models(tmp_path) as browser:
        (browser.folder / "no.gguf").write_text("hello")
        with pytest.raises(ModelFileError, match=r"no\.gguf: "):
            browser.load(browser.folder / "no.gguf")


def test_without_chromium_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match=r"none of chromium, .* is on PATH"):
        run_wasm_type_costs()


def test_a_browser_that_ends_is_an_error(chromium, tmp_path):
    chromium("exit 3")
    folder = tmp_path / "page"
    folder.mkdir()
    with pytest.raises(RequestError, match="ended with status 3"), browser_models(folder):
        pass
