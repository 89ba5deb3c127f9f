"""Headers of GGUF files, read as a model, an adapter, a base to convert, and by `thirteen models`."""

from pathlib import Path

from thirteen.cli.models import model_facts
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import read_vocabulary
from thirteen.errors import ThirteenError
from thirteen.files.gguf.header import Header, StringArray, read_header
from thirteen.runtime.llama.model import read_adapter_header, read_model_header

from ..gguf_mutations import RawFile
from ..mutators import mutate_gguf
from ..target import BASE, Target, accepts, refused, scratch_file

_BASE_HEADER = read_header(BASE)


def check(data: bytes) -> bool:
    path = scratch_file("model.gguf", data)
    try:
        header = read_header(path)
    except ThirteenError as error:
        return refused(error)
    _check_values(header, data)
    model_facts(header)
    if "adapter.type" in header.fields:
        return accepts(read_adapter_header, path, _BASE_HEADER)
    accepts(read_vocabulary, header)
    accepts(_open_base, path)
    return accepts(read_model_header, path)


def _check_values(header: Header, data: bytes) -> None:
    """Compare a header with what a reader finds that checks nothing."""
    raw = RawFile.decode(data)
    assert [_text(entry.key) for entry in raw.fields] == list(header.fields)
    for entry, field in zip(raw.fields, header.fields.values(), strict=True):
        assert (entry.type, entry.element) == (field.type, field.element)
        assert repr(_text(entry.value)) == repr(_text(field.value)), entry.key  # NaN is not equal to itself
    for declared, tensor in zip(raw.tensors, header.tensors.values(), strict=True):
        assert (_text(declared.name), declared.shape) == (tensor.name, tensor.shape)
        assert (declared.type, declared.nbytes) == (tensor.type, tensor.nbytes)
        assert data[tensor.offset :][: tensor.nbytes] == declared.data


def _text(value: object) -> object:
    if isinstance(value, list | StringArray):
        return [_text(item) for item in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _open_base(path: Path) -> None:
    base = open_checkpoint(path)
    for name, spec in base.specs.items():
        assert base.rows(name, 0, spec.shape[0]).shape == spec.shape
    tables = TokenizerTables.from_fields(base.tokenizer, str(path))
    assert tables.required_ids <= set(range(len(tables.tokens)))
    tables.missing_parts(tables.required_ids)


TARGET = Target(check, max_bytes=1 << 14, mutate=mutate_gguf)
