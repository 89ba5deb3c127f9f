"""Quantizers to compare with: their names, what is missing, and which formats are around a size."""

from pathlib import Path

import pytest
from thirteen.bench.peers.llama_quantize import StockFormat
from thirteen.bench.size import quantizers
from thirteen.bench.size.quantizers import Quantizer, formats_around, parse_quantizers, schemes_around
from thirteen.bench.size.size import StockSize
from thirteen.errors import RequestError


def stock(kind: str, **megabytes: float) -> list[StockSize]:
    return [StockSize(kind, name, round(1e6 * size), 1.0) for name, size in megabytes.items()]


def test_names_are_parsed_once_each(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.touch()
    assert parse_quantizers("--with", "none") == (False, ())
    assert parse_quantizers("--with", "imatrix") == (True, ())
    found = parse_quantizers("--with", f"autoround, imatrix,gptq-gguf={file},autoround")
    assert found == (True, (Quantizer("autoround"), Quantizer("gptq-gguf", file)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("autoround,gguf", r"--with 'gguf': must be none, or some of imatrix, autoround, "),
        ("", r"--with '': must be none"),
        ("none,autoround", r"--with 'none': must be"),
        ("gptq-gguf=missing.gguf", r"--with gptq-gguf=missing\.gguf: there is no file 'missing\.gguf'"),
        ("gptq-gguf=", r"--with gptq-gguf=: there is no file ''"),
    ],
)
def test_unknown_names_and_missing_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_quantizers("--with", text)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizers, "find_spec", lambda name: None if name == "auto_round" else object())
    missing = Quantizer("autoround-light").missing
    assert missing is not None and missing.startswith("auto-round not installed: install the extra `curve`")
    monkeypatch.setattr(quantizers, "find_spec", lambda name: object())
    assert Quantizer("autoround").missing is None


def test_a_quantizer_without_a_package_can_still_be_given_as_a_file() -> None:
    assert "in no package index" in str(Quantizer("gptq-gguf").missing)
    assert Quantizer("gptq-gguf", Path("made.gguf")).missing is None


def test_formats_are_the_two_below_each_size_and_the_one_above() -> None:
    uniform = stock("uniform", Q2_K=50, MXFP4=70, Q4_0=80, IQ4_NL=80, Q4_1=90, Q8_0=140)
    mixes = stock("mix", Q4_K_M=100, Q8_0=140)
    found = formats_around([85_000_000], [*uniform, *mixes])
    assert [(one.kind, one.name) for one in found] == [
        *(("uniform", name) for name in ("MXFP4", "Q4_0", "IQ4_NL", "Q4_1")),
        ("mix", "Q4_K_M"),
    ]
    assert formats_around([80_000_000], uniform) == found[:4]  # a file of exactly this size fits
    assert formats_around([10_000_000], uniform) == [StockFormat("uniform", "Q2_K")]
    assert len(formats_around([85_000_000, 150_000_000], [*uniform, *mixes])) == 7
    assert formats_around([], uniform) == []


def test_of_schemes_of_equal_size_the_larger_types_are_taken() -> None:
    """Q2_K_S and Q3_K_S are the same bytes for rows that K-quants do not divide."""
    names = ("Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M")
    mixes = stock("mix", Q2_K=88.2, Q3_K_S=88.2, Q6_K=138, Q8_0=145, **dict.fromkeys(names, 100))
    assert schemes_around([72_000_000, 88_000_000, 150_000_000], mixes) == ["Q3_K_S", "Q8_0"]
