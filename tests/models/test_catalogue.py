"""The catalogue: its entries, and their agreement with the shipped files."""

import re
from math import prod

import pytest
from thirteen.convert.adapter.adapter import adapter_sha256
from thirteen.convert.source.architecture import tensor_specs
from thirteen.convert.source.model_config import from_config
from thirteen.errors import FileError
from thirteen.models.catalogue import adapter_folder, catalogue


def test_configs_are_valid_architectures_of_the_stated_size():
    for name, base in catalogue().bases.items():
        architecture = from_config(base.config, name)
        weights = sum(prod(spec.shape) for spec in tensor_specs(architecture).values())
        assert weights == base.parameters
        assert bool(architecture.divisors) == name.startswith("llama")


def test_entries_are_well_formed():
    for base in catalogue().bases.values():
        assert re.fullmatch(r"[\w-]+/[\w.-]+", base.hub_id)
        assert bool(base.public_copy) == base.gated  # for users without access to the gated repository
        assert base.gated == base.hub_id.startswith(("meta-llama/", "google/"))
        assert base.gated == (base.licence in ("llama3.2", "gemma"))
        assert re.fullmatch(r"[0-9a-f]{40}", base.revision)
    assert catalogue().embedded.base in catalogue().bases


def test_the_listed_adapters_are_the_shipped_folders():
    """A folder without an entry, or the reverse, would be a name that works in one place only."""
    adapters = {name: one for name, one in catalogue().adapters.items() if not one.code}
    folder = adapter_folder(next(iter(adapters))).parent
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(adapters)
    for name, adapter in adapters.items():
        assert adapter_folder(name).name == name
        assert adapter_sha256(adapter_folder(name)) == adapter.sha256
        assert adapter.base in catalogue().bases


@pytest.mark.parametrize(
    ("gigabytes", "name"), [(1, None), (1.5, "qwen2.5-0.5b"), (3, "qwen2.5-1.5b"), (64, "qwen2.5-1.5b")]
)
def test_the_recommended_base_is_the_best_ungated_one_that_fits(gigabytes, name):
    best = catalogue().recommended(int(gigabytes * 1e9))
    assert (best.name if best else None) == name


@pytest.mark.parametrize(
    ("name", "hint"), [("llama-3.2-1B", "llama-3.2-1b"), ("smollm-135m", "smollm2-135m")]
)
def test_a_misspelled_name_is_corrected(name, hint):
    with pytest.raises(FileError, match=rf"no base '{name}': did you mean {re.escape(hint)}"):
        catalogue().base(name)
