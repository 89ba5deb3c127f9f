"""Conversion with searched scales."""

from dataclasses import replace

from thirteen.convert import tensors
from thirteen.convert.convert import convert
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.recipe import Recipe
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.files.gguf.header import read_header
from thirteen.files.progress import Run


def test_searched_scales_change_the_weights_alike_for_any_number_of_threads(
    base, measured, tmp_path, monkeypatch
):
    monkeypatch.setattr(tensors, "BLOCK_WEIGHTS", 1 << 15)  # many blocks, like a real model

    def converted(name: str, *, search_scales: bool, threads: int) -> str:
        recipe = Recipe(base("llama wide"), tmp_path / name, importance=measured("llama wide"))
        return convert(replace(recipe, search_scales=search_scales), Run(threads)).sha256

    given = converted("given.gguf", search_scales=False, threads=1)
    searched = {converted("searched.gguf", search_scales=True, threads=threads) for threads in (1, 3)}
    assert len(searched) == 1 and given not in searched
    given_header, header = (read_header(tmp_path / name) for name in ("given.gguf", "searched.gguf"))
    assert "thirteen.scales" not in given_header.metadata
    assert header.metadata["thirteen.scales"] == "searched"
    types, given_types = (
        {name: info.type for name, info in one.tensors.items()} for one in (header, given_header)
    )
    assert types == given_types


def test_without_covariances_a_warning_says_that_nothing_is_searched(base):
    for search in (False, True):
        model = MergedModel(open_checkpoint(base("llama"))).weighted(None, search_scales=search)
        assert any("not searched" in line for line in model.warnings) == search
        assert "thirteen.scales" not in model.metadata("Q4_K")
