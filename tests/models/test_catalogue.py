"""The catalogue: its entries, and their agreement with the shipped files."""

import re
from math import prod

import pytest
from thirteen.convert.source.architecture import from_config, tensor_specs
from thirteen.errors import DownloadError
from thirteen.models.catalogue import adapter_folder, catalogue

# Vocabulary, width, feed-forward width, layers, width of the queries, of the keys, attention biases.
_SHAPES = {
    "smollm2-135m": (49_152, 576, 1_536, 30, 576, 192, False),
    "smollm2-360m": (49_152, 960, 2_560, 32, 960, 320, False),
    "smollm2-1.7b": (49_152, 2_048, 8_192, 24, 2_048, 2_048, False),
    "llama-3.2-1b": (128_256, 2_048, 8_192, 16, 2_048, 512, False),
    "llama-3.2-3b": (128_256, 3_072, 8_192, 28, 3_072, 1_024, False),
    "qwen2.5-0.5b": (151_936, 896, 4_864, 24, 896, 128, True),
    "qwen2.5-1.5b": (151_936, 1_536, 8_960, 28, 1_536, 256, True),
}


def _parameters(shape):
    vocabulary, width, ffn, layers, queries, keys, biased = shape
    biases = queries + 2 * keys if biased else 0
    layer = 2 * width * queries + 2 * width * keys + biases + 3 * width * ffn + 2 * width
    return vocabulary * width + layers * layer + width


def test_parameter_counts_follow_from_the_shapes():
    assert {name: base.parameters for name, base in catalogue().bases.items()} == {
        name: _parameters(shape) for name, shape in _SHAPES.items()
    }


def test_configs_have_the_shapes_and_are_valid_architectures():
    for name, base in catalogue().bases.items():
        architecture = from_config(base.config, name)
        counted = sum(prod(spec.shape) for spec in tensor_specs(architecture).values())
        assert (architecture.name, counted) == (base.architecture, base.parameters)
        vocabulary, width, ffn, layers, queries, keys, _ = _SHAPES[name]
        assert (architecture.vocab, architecture.hidden) == (vocabulary, width)
        assert (architecture.ffn, architecture.layers) == (ffn, layers)
        assert architecture.heads * architecture.head_dim == queries
        assert architecture.kv_heads * architecture.head_dim == keys
        assert (architecture.scaling is not None) == base.gated


def test_entries_are_well_formed():
    for base in catalogue().bases.values():
        assert re.fullmatch(r"[\w-]+/[\w.-]+-Instruct", base.hub_id)
        assert base.architecture in {"llama", "qwen2"}
        assert bool(base.public_copy) == base.gated  # for users without access to the gated repository
        assert base.gated == base.hub_id.startswith("meta-llama/")
        assert base.licence == ("llama3.2" if base.gated else "apache-2.0")
        assert re.fullmatch(r"[0-9a-f]{40}", base.revision)
    assert catalogue().embedded.base in catalogue().bases


def test_the_listed_adapters_are_the_shipped_folders():
    """A folder without an entry, or the reverse, would be a name that works in one place only."""
    adapters = catalogue().adapters
    folder = next(iter(adapters.values())).folder.parent
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(adapters)
    for name, adapter in adapters.items():
        assert adapter_folder(name) == adapter.folder
        assert adapter.base in catalogue().bases


@pytest.mark.parametrize(
    ("name", "hint"), [("llama-3.2-1B", "llama-3.2-1b"), ("smollm-135m", "smollm2-135m")]
)
def test_a_misspelled_name_is_corrected(name, hint):
    with pytest.raises(DownloadError, match=rf"no base '{name}': did you mean {re.escape(hint)}"):
        catalogue().base(name)


def test_the_error_of_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DownloadError) as caught:
        catalogue().base("gpt-2")
    assert all(name in str(caught.value) for name in ["embedded", *catalogue().bases])
    with pytest.raises(DownloadError, match="no adapter 'nothing'"):
        adapter_folder("nothing")
