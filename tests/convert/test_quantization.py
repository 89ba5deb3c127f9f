"""Each quantization lays out its file exactly before it is written."""

import re
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from thirteen.convert import tensors
from thirteen.convert.convert import convert, plan
from thirteen.convert.fit_size import FileSize, FitSize
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.quantize.costs import costs_for
from thirteen.convert.recipe import Like, Recipe, Same, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.tensors import TensorSpec, plan_stored
from thirteen.convert.write import FileLayout
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header
from thirteen.files.progress import Run

from .peft_adapters import read_gguf, save_random_adapter
from .test_merge import lora
from .vocabulary.kept_lists import closed_list, tables_of

pytestmark = pytest.mark.slow


def fit(size: int, text: str = "") -> FitSize:
    return FitSize(FileSize(text or f"{size}B", size, 1), "quality", costs_for("x86"))


def limits(message: str) -> list[str]:
    """The bytes in a planner's error."""
    return re.findall(r"[\d,]{4,}", message)


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_layout_is_that_of_the_file(base, measured, tmp_path, adapted, trimmed):
    """A plan measured a header with another type, other names, and without the keys of the scales."""
    folder, example = base("llama long"), tmp_path / "example.gguf"
    kept = closed_list(tables_of(folder), [261]) if trimmed else None
    recipe = Recipe(
        folder,
        tmp_path / "a.gguf",
        adapter=save_random_adapter(folder, lora(), tmp_path / "adapter") if adapted else None,
        vocabulary=kept,
        importance=measured("llama long"),
        search_scales=True,
        # So long a text, and so long a name, that the header does not fit its padding by chance.
        ids=("a base with a long name " * 3, ""),
    )
    convert(replace(recipe, output=example))
    for quantization in (Uniform("Q5_K"), Same(), Like(example), fit(100_000, "100000B" + " " * 40)):
        whole = replace(recipe, quantization=quantization)
        planned, _ = plan(whole)
        written = convert(whole).layout
        found = FileLayout.of(read_header(tmp_path / "a.gguf"))
        assert planned == written
        assert written.file_bytes == found.file_bytes == (tmp_path / "a.gguf").stat().st_size
        assert [replace(one, source=one.target) for one in written.tensors] == list(found.tensors)
        assert written.types == found.types
        assert planned.prediction is None or planned.prediction.file_bytes == planned.file_bytes


def test_rows_that_no_block_of_the_type_divides_are_a_warning(base):
    """`--type Q4_K` wrote most of SmolLM2-135M as Q5_0 without a word."""
    _, warnings = plan(Recipe(base("llama"), quantization=Uniform("Q4_K")))
    (warning,) = warnings
    assert "15 of 15 matrices get another type, such as token_embd.weight Q5_0: its rows of 64" in warning
    assert plan(Recipe(base("llama"), quantization=Uniform("Q4_0")))[1] == []


def test_a_plan_is_for_the_library_that_suits_it_best(base, measured, tmp_path):
    """The other one reads everything a twentieth faster, then a fifth, then Q8_0 alone, at a tenth."""
    recipe = Recipe(base("llama"), tmp_path / "a.gguf", importance=measured("llama"))
    ours = costs_for("x86")

    def planned(prefer: str | None, factor: float, *types: str) -> tuple[str, int]:
        layer, output = (
            {name: cost * factor if not types or name in types else cost for name, cost in part.items()}
            for part in (ours.layer, ours.output)
        )
        other = replace(ours, layer=layer, output=output, library="ik")
        quantization = FitSize(FileSize("7bpw", 7.0, None), prefer, ours, (other,))
        layout, _ = plan(replace(recipe, quantization=quantization))
        assert layout.prediction
        return layout.prediction.library, layout.types["Q8_0"].weights if "Q8_0" in layout.types else 0

    assert planned("quality", 0.95)[0] == planned(None, 0.95)[0] == "llama.cpp"
    assert planned("quality", 0.8)[0] == planned(None, 0.8)[0] == "ik"
    library, weights = planned("speed", 0.1, "Q8_0")
    assert library == "ik" and weights > planned("speed", 0.95)[1]


def test_searched_scales_are_the_same_for_any_number_of_threads(base, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "BLOCK_WEIGHTS", 1 << 15)  # many blocks, like a real model

    given = Recipe(base("llama wide"), tmp_path / "a.gguf", importance=measured("llama wide"))
    convert(given)
    before = read_gguf(given.output)
    searched = {convert(replace(given, search_scales=True), Run(threads)).sha256 for threads in (1, 3)}
    assert len(searched) == 1
    assert read_header(given.output).metadata["thirteen.scales"] == "searched"
    after = read_gguf(given.output)
    assert {name: rows.shape for name, rows in after.items()} == {n: rows.shape for n, rows in before.items()}
    assert any(not np.array_equal(rows, before[name]) for name, rows in after.items())


def test_without_covariances_a_warning_says_that_nothing_is_searched(base):
    for search in (False, True):
        model = MergedModel(open_checkpoint(base("llama")))
        model.weigh(None, search_scales=search)
        assert any("not searched" in line for line in model.warnings) == search
        assert "thirteen.scales" not in model.metadata("Q4_K")


def test_base_with_types_of_adapted_file_equals_base_converted_to_that_type(base, tmp_path):
    plain, adapted, alike = (tmp_path / f"{part}.gguf" for part in ("plain", "adapted", "alike"))
    convert(Recipe(base("llama long"), plain, Uniform("Q4_K")))
    adapter = save_random_adapter(base("llama long"), lora(2, 4), tmp_path / "adapter")
    convert(Recipe(base("llama long"), adapted, Uniform("Q4_K"), adapter=adapter))
    convert(Recipe(base("llama long"), alike, Like(adapted)))
    assert alike.read_bytes() == plain.read_bytes() != adapted.read_bytes()


def test_the_types_of_a_file_with_rope_factors_are_kept(base, tmp_path):
    """It ended in a KeyError: no base stores the factors, which are computed."""
    convert(Recipe(base("llama long"), tmp_path / "plain.gguf", Uniform("Q4_K")))
    convert(Recipe(tmp_path / "plain.gguf", tmp_path / "same.gguf", Same()))
    plain, same = (read_gguf(tmp_path / f"{name}.gguf") for name in ("plain", "same"))
    assert "rope_freqs.weight" in plain and plain.keys() == same.keys()
    assert all(np.array_equal(plain[name], values) for name, values in same.items())


@pytest.mark.parametrize(("shape", "type_", "planned"), [((8,), "BF16", "F32"), ((8, 8), "F64", None)])
def test_a_type_of_another_writer_is_checked(shape, type_, planned):
    """A vector in BF16 was a ValueError, and a matrix in F64 ended the process."""
    spec, types = TensorSpec("x", "x", shape), GGMLQuantizationType
    with nullcontext() if planned else pytest.raises(FileError, match="'x' is in F64, which cannot"):
        assert plan_stored(spec, types[type_]).type is types[planned or "F32"]
