"""Headers of GGUF files, read as a model, an adapter, a base to convert, and by `thirteen models`."""

from pathlib import Path

from thirteen.cli.models import model_facts
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import read_vocabulary
from thirteen.convert.write import FileLayout
from thirteen.errors import ThirteenError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.llama.model import read_adapter_header, read_model_header

from ..mutators import mutate_gguf
from ..target import BASE, Target, accepts, refused, scratch_file

_BASE_HEADER = read_header(BASE)


def check(data: bytes) -> bool:
    path = scratch_file("model.gguf", data)
    try:
        header = read_header(path)
    except ThirteenError as error:
        return refused(error)
    model_facts(header, FileLayout.of(header))
    if "adapter.type" in header.fields:
        return accepts(read_adapter_header, path, _BASE_HEADER)
    accepts(read_vocabulary, header)
    accepts(_open_base, path)
    return accepts(read_model_header, path)


def _open_base(path: Path) -> None:
    base = open_checkpoint(path)
    for name, spec in base.specs.items():
        assert base.rows(name, 0, spec.shape[0]).shape == spec.shape
    tables = TokenizerTables.from_fields(base.tokenizer, str(path))
    assert tables.required_ids <= set(range(len(tables.tokens)))


TARGET = Target(check, max_bytes=1 << 14, mutate=mutate_gguf)
