"""Stock files made by the real library, and equal to ours where both use the same types."""

from collections.abc import Callable
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from thirteen.bench.peers.llama_quantize import MIXES, UNIFORM, StockFormat, quantize_stock
from thirteen.convert.pipeline import convert
from thirteen.convert.quantize.importance import ImportanceStats, write_importance
from thirteen.errors import ModelFileError, OutputError, ThirteenError
from thirteen.files.gguf.header import read_header


class Sources:
    """Small bases by name, their F32 conversions and importance files, each made on first use."""

    def __init__(self, base: Callable[[str], Path], folder: Path) -> None:
        self.base = base
        self.folder = folder

    def full(self, name: str) -> Path:
        path = self.folder / f"{name}.gguf"
        if not path.exists():
            convert(self.base(name), path, quantization="F32")
        return path

    def importance(self, name: str) -> Path:
        """An importance file without covariances, so that our rounding is ggml's."""
        random = np.random.default_rng(13)
        tensors = read_header(self.full(name)).tensors.values()
        columns = {tensor.name: tensor.shape[-1] for tensor in tensors if len(tensor.shape) == 2}
        sums = {tensor: random.gamma(2, 9, width).astype(np.float32) for tensor, width in columns.items()}
        counts = {tensor: 100 + index for index, tensor in enumerate(sums)}
        path = self.folder / f"{name}-importance.gguf"
        write_importance(path, ImportanceStats(sums, counts, 64, 3, ["some.txt", "more.txt"]))
        return path


@pytest.fixture(scope="module")
def sources(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(base, tmp_path_factory.mktemp("sources"))


def tensors(path: Path) -> dict[str, tuple[Type, bytes]]:
    """Type and bytes of each tensor, as the gguf package reads them."""
    return {
        tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in gguf.GGUFReader(path).tensors
    }


def types(path: Path) -> dict[str, str]:
    """Type of each matrix."""
    return {t.name: t.type.name for t in read_header(path).tensors.values() if len(t.shape) == 2}


@pytest.mark.parametrize(
    ("name", "type_", "with_importance"),
    [
        ("llama", "Q4_0", False),
        ("qwen2", "Q5_1", False),
        ("llama wide", "Q6_K", False),
        ("llama", "IQ4_NL", True),
        ("llama wide", "Q4_K", True),
        ("llama wide", "IQ3_XXS", True),
    ],
)
def test_a_uniform_file_has_the_bytes_of_our_conversion(
    sources: Sources, tmp_path: Path, name: str, type_: str, with_importance: bool
) -> None:
    importance = sources.importance(name) if with_importance else None
    stock, ours = tmp_path / "stock.gguf", tmp_path / "ours.gguf"
    quantize_stock(sources.full(name), stock, StockFormat("uniform", type_), importance=importance, threads=2)
    convert(sources.base(name), ours, quantization=type_, importance=importance)
    assert tensors(stock) == tensors(ours)
    assert type_ in types(stock).values()


@pytest.mark.parametrize("type_", ["Q2_K", "IQ3_XXS", "Q3_K", "IQ3_S", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K"])
def test_rows_that_do_not_fit_a_type_fall_back_as_in_our_conversion(
    sources: Sources, tmp_path: Path, type_: str
) -> None:
    """Rows of 64 and 96 do not fit types with blocks of 256."""
    stock, importance = StockFormat("uniform", type_), sources.importance("llama")
    quantize_stock(sources.full("llama"), tmp_path / "stock.gguf", stock, importance=importance, threads=1)
    convert(sources.base("llama"), tmp_path / "ours.gguf", quantization=type_, importance=importance)
    assert types(tmp_path / "stock.gguf") == types(tmp_path / "ours.gguf")


@pytest.mark.parametrize(
    ("name", "mix", "embedding"),
    [
        ("llama", "Q4_K_M", "Q8_0"),
        ("llama wide", "Q4_K_M", "Q6_K"),
        ("llama wide", "IQ3_XXS", "Q5_K"),
        ("llama wide", "Q4_0", "Q6_K"),
    ],
)
def test_a_mix_has_the_types_that_llama_cpp_chooses(
    sources: Sources, tmp_path: Path, name: str, mix: str, embedding: str
) -> None:
    target = tmp_path / "a.gguf"
    quantize_stock(
        sources.full(name), target, StockFormat("mix", mix), importance=sources.importance(name), threads=1
    )
    mix_types = types(target)
    assert mix_types["token_embd.weight"] == embedding
    assert len(set(mix_types.values())) > 1
    norms = [t for t in read_header(target).tensors.values() if len(t.shape) == 1]
    assert norms and {t.type for t in norms} == {Type.F32}


def test_the_importance_changes_the_weights_and_is_recorded_in_the_metadata(
    sources: Sources, tmp_path: Path
) -> None:
    plain, weighted = tmp_path / "plain.gguf", tmp_path / "weighted.gguf"
    quantize_stock(sources.full("llama"), plain, StockFormat("uniform", "Q4_0"), threads=1)
    quantize_stock(
        sources.full("llama"),
        weighted,
        StockFormat("uniform", "Q4_0"),
        importance=sources.importance("llama"),
        threads=1,
    )
    ours, theirs = tensors(weighted), tensors(plain)
    assert all(ours[name] != theirs[name] for name in types(plain))
    recorded = {
        key.removeprefix("quantize.imatrix."): value
        for key, value in read_header(weighted).metadata.items()
        if key.startswith("quantize.imatrix.")
    }
    assert recorded == {
        "file": str(sources.importance("llama"))[:127],
        "dataset": "some.txt",
        "entries_count": len(types(plain)),
        "chunks_count": 3,
    }
    assert not any(key.startswith("quantize.") for key in read_header(plain).metadata)


def test_the_number_of_threads_changes_no_byte(sources: Sources, tmp_path: Path) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    for path, threads in ((one, 1), (two, 3)):
        quantize_stock(
            sources.full("llama wide"),
            path,
            StockFormat("mix", "Q3_K_M"),
            importance=sources.importance("llama wide"),
            threads=threads,
        )
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("stock", (*UNIFORM, *MIXES), ids=lambda stock: f"{stock.kind} {stock.name}")
def test_every_format_has_llama_cpps_file_type(stock: StockFormat) -> None:
    names = {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "MXFP4": "MXFP4_MOE"}
    expected = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{names.get(stock.name, stock.name)}")
    assert stock.file_type == expected


def refused(
    error: type[ThirteenError], message: str, target: Path, *arguments: object, **options: object
) -> None:
    """The call raises a one-line error and leaves no file."""
    before = sorted(target.parent.iterdir()) if target.parent.exists() else []
    with pytest.raises(error, match=message) as raised:
        quantize_stock(*arguments, **options)
    assert "\n" not in str(raised.value)
    assert (sorted(target.parent.iterdir()) if target.parent.exists() else []) == before


def test_formats_and_files_that_llama_cpp_rejects_are_refused(
    sources: Sources, not_a_model: Path, tmp_path: Path
) -> None:
    source, target = sources.full("llama"), tmp_path / "a.gguf"
    q4_0, wide = StockFormat("uniform", "Q4_0"), sources.full("llama wide")
    refused(
        OutputError,
        "'Q9_K': llama.cpp has no such mix format",
        target,
        source,
        target,
        StockFormat("mix", "Q9_K"),
    )
    refused(OutputError, "no such uniform format", target, source, target, StockFormat("uniform", "IQ2_XXS"))
    refused(ModelFileError, r"no\.gguf: not a GGUF", target, not_a_model, target, q4_0)
    refused(ModelFileError, "No such file", target, tmp_path / "none.gguf", target, q4_0)
    refused(
        ModelFileError, "'general.architecture' is missing", target, sources.importance("llama"), target, q4_0
    )
    refused(OutputError, "does not exist", tmp_path / "none" / "a", source, tmp_path / "none" / "a", q4_0)
    refused(OutputError, "is an input of this command", source, source, source, q4_0)
    no_importance = r"cannot quantize it to IQ3_XXS: this quantization requires an importance matrix"
    refused(OutputError, no_importance, target, wide, target, StockFormat("uniform", "IQ3_XXS"))
    other_model = r"imatrix size 64 is different from tensor size 256 for blk\.0"
    refused(
        OutputError,
        other_model,
        target,
        wide,
        target,
        q4_0,
        importance=sources.importance("llama"),
        threads=1,
    )
    refused(ModelFileError, r"no\.gguf", target, source, target, q4_0, importance=not_a_model)


def test_a_quantized_file_is_not_quantized_again(sources: Sources, tmp_path: Path) -> None:
    small, target = tmp_path / "small.gguf", tmp_path / "a.gguf"
    quantize_stock(sources.full("llama"), small, StockFormat("uniform", "Q8_0"), threads=1)
    refused(
        *(OutputError, "requantizing from type q8_0 is disabled", target),
        *(small, target, StockFormat("uniform", "Q4_0")),
        threads=1,
    )
