"""Stock files are llama.cpp's own, made by the real library: where ours are to be the same, they are."""

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
from thirteen.files.gguf_header import read_header


class Made:
    """A small base by its name, its conversion to F32, and an importance for it, each made when asked for."""

    def __init__(self, base: Callable[[str], Path], folder: Path) -> None:
        self.base = base
        self.folder = folder

    def full(self, name: str) -> Path:
        path = self.folder / f"{name}.gguf"
        if not path.exists():
            convert(self.base(name), path, quantization="F32")
        return path

    def importance(self, name: str) -> Path:
        """Sums and counts of all matrices, without covariances: rounding is ggml's alone."""
        random = np.random.default_rng(13)
        tensors = read_header(self.full(name)).tensors.values()
        columns = {tensor.name: tensor.shape[-1] for tensor in tensors if len(tensor.shape) == 2}
        sums = {tensor: random.gamma(2, 9, width).astype(np.float32) for tensor, width in columns.items()}
        counts = {tensor: 100 + at for at, tensor in enumerate(sums)}
        path = self.folder / f"{name}-importance.gguf"
        write_importance(path, ImportanceStats(sums, counts, 64, 3, ["some.txt", "more.txt"]))
        return path


@pytest.fixture(scope="module")
def made(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(base, tmp_path_factory.mktemp("made"))


def tensors(path: Path) -> dict[str, tuple[Type, bytes]]:
    """The file's tensors, by the gguf package."""
    return {
        tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in gguf.GGUFReader(path).tensors
    }


def types(path: Path) -> dict[str, str]:
    """The types of the file's matrices."""
    return {t.name: t.type.name for t in read_header(path).tensors.values() if len(t.shape) == 2}


@pytest.mark.parametrize(
    ("name", "type_", "weighed"),
    [
        ("llama", "Q4_0", False),
        ("qwen2", "Q5_1", False),
        ("llama wide", "Q6_K", False),
        ("llama", "IQ4_NL", True),
        ("llama wide", "Q4_K", True),
        ("llama wide", "IQ3_XXS", True),
    ],
)
def test_a_file_of_one_type_has_the_bytes_of_our_own(
    made: Made, tmp_path: Path, name: str, type_: str, weighed: bool
) -> None:
    given = made.importance(name) if weighed else None
    stock, ours = tmp_path / "stock.gguf", tmp_path / "ours.gguf"
    quantize_stock(made.full(name), stock, StockFormat("uniform", type_), importance=given, threads=2)
    convert(made.base(name), ours, quantization=type_, importance=given)
    assert tensors(stock) == tensors(ours)
    assert type_ in types(stock).values()


@pytest.mark.parametrize("type_", ["Q2_K", "IQ3_XXS", "Q3_K", "IQ3_S", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K"])
def test_rows_that_do_not_fit_a_type_fall_back_as_ours_do(made: Made, tmp_path: Path, type_: str) -> None:
    """Rows of 64 and 96 take no type of 256."""
    stock, given = StockFormat("uniform", type_), made.importance("llama")
    quantize_stock(made.full("llama"), tmp_path / "stock.gguf", stock, importance=given, threads=1)
    convert(made.base("llama"), tmp_path / "ours.gguf", quantization=type_, importance=given)
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
def test_a_mix_is_llama_cpps_choice(made: Made, tmp_path: Path, name: str, mix: str, embedding: str) -> None:
    target = tmp_path / "a.gguf"
    quantize_stock(
        made.full(name), target, StockFormat("mix", mix), importance=made.importance(name), threads=1
    )
    chosen = types(target)
    assert chosen["token_embd.weight"] == embedding
    assert len(set(chosen.values())) > 1
    norms = [t for t in read_header(target).tensors.values() if len(t.shape) == 1]
    assert norms and {t.type for t in norms} == {Type.F32}


def test_the_importance_weighs_and_the_file_tells_of_it(made: Made, tmp_path: Path) -> None:
    plain, weighed = tmp_path / "plain.gguf", tmp_path / "weighed.gguf"
    quantize_stock(made.full("llama"), plain, StockFormat("uniform", "Q4_0"), threads=1)
    quantize_stock(
        made.full("llama"),
        weighed,
        StockFormat("uniform", "Q4_0"),
        importance=made.importance("llama"),
        threads=1,
    )
    ours, theirs = tensors(weighed), tensors(plain)
    assert all(ours[name] != theirs[name] for name in types(plain))
    told = {
        key.removeprefix("quantize.imatrix."): value
        for key, value in read_header(weighed).metadata.items()
        if key.startswith("quantize.imatrix.")
    }
    assert told == {
        "file": str(made.importance("llama"))[:127],
        "dataset": "some.txt",
        "entries_count": len(types(plain)),
        "chunks_count": 3,
    }
    assert not any(key.startswith("quantize.") for key in read_header(plain).metadata)


def test_threads_change_no_byte(made: Made, tmp_path: Path) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    for path, threads in ((one, 1), (two, 3)):
        quantize_stock(
            made.full("llama wide"),
            path,
            StockFormat("mix", "Q3_K_M"),
            importance=made.importance("llama wide"),
            threads=threads,
        )
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("stock", (*UNIFORM, *MIXES), ids=lambda stock: f"{stock.kind} {stock.name}")
def test_every_name_is_a_number_of_llama_cpps(stock: StockFormat) -> None:
    names = {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "MXFP4": "MXFP4_MOE"}
    known = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{names.get(stock.name, stock.name)}")
    assert stock.file_type == known


def refused(error: type[ThirteenError], said: str, target: Path, *words: object, **how: object) -> None:
    """The call is one clear error, and leaves nothing."""
    there = sorted(target.parent.iterdir()) if target.parent.exists() else []
    with pytest.raises(error, match=said) as raised:
        quantize_stock(*words, **how)
    assert "\n" not in str(raised.value)
    assert (sorted(target.parent.iterdir()) if target.parent.exists() else []) == there


def test_what_llama_cpp_does_not_make_is_refused(made: Made, not_a_model: Path, tmp_path: Path) -> None:
    source, target = made.full("llama"), tmp_path / "a.gguf"
    q4_0, wide = StockFormat("uniform", "Q4_0"), made.full("llama wide")
    refused(
        OutputError, "'Q9_K': llama.cpp makes no such mix", target, source, target, StockFormat("mix", "Q9_K")
    )
    refused(OutputError, "no such uniform file", target, source, target, StockFormat("uniform", "IQ2_XXS"))
    refused(ModelFileError, r"no\.gguf: not a GGUF", target, not_a_model, target, q4_0)
    refused(ModelFileError, "No such file", target, tmp_path / "none.gguf", target, q4_0)
    refused(
        ModelFileError, "'general.architecture' is missing", target, made.importance("llama"), target, q4_0
    )
    refused(OutputError, "does not exist", tmp_path / "none" / "a", source, tmp_path / "none" / "a", q4_0)
    refused(OutputError, "is read here", source, source, source, q4_0)
    needy = r"did not quantize to IQ3_XXS: this quantization requires an imatrix"
    refused(OutputError, needy, target, wide, target, StockFormat("uniform", "IQ3_XXS"))
    foreign = r"imatrix size 64 is different from tensor size 256 for blk\.0"
    refused(OutputError, foreign, target, wide, target, q4_0, importance=made.importance("llama"), threads=1)
    refused(ModelFileError, r"no\.gguf", target, source, target, q4_0, importance=not_a_model)


def test_a_quantized_file_is_not_quantized_again(made: Made, tmp_path: Path) -> None:
    small, target = tmp_path / "small.gguf", tmp_path / "a.gguf"
    quantize_stock(made.full("llama"), small, StockFormat("uniform", "Q8_0"), threads=1)
    refused(
        *(OutputError, "requantizing from type q8_0 is disabled", target),
        *(small, target, StockFormat("uniform", "Q4_0")),
        threads=1,
    )
