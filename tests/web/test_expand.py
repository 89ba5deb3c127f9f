"""Types that the page rewrites as Q8_0: the weights stay exactly the same. By Node.js, on real files."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from thirteen.convert.source.architecture import Architecture
from thirteen.quality.costs.random_model import write_uniform_model
from thirteen.web.shared_modules import shared_modules

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")

SHAPE = Architecture(
    name="llama", layers=1, hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64, vocab=300, context=64,
    rms_eps=1e-5, rope_theta=10000.0, tied=True,
)  # fmt: skip
SCRIPT = """import { openAsBlob, writeFileSync } from 'node:fs';
import { expandTypes } from './expand.js';
const [from, to, max] = process.argv.slice(2);
const blob = await openAsBlob(from);
const expanded = await expandTypes(blob, Number(max));
writeFileSync(to, new Uint8Array(await expanded.arrayBuffer()));
console.log(expanded === blob);
"""
EXPANDED = ("Q4_0", "Q5_0", "IQ4_NL", "MXFP4")


@pytest.fixture
def expand(tmp_path):
    """expand(model, max_bytes): the path of the result, and whether it is the file itself."""
    for name in ("expand.js", "gguf.js"):
        (tmp_path / name).write_bytes(shared_modules()[name])
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "run.js").write_text(SCRIPT)

    def run(model: Path, max_bytes: int = 2**31) -> tuple[Path, bool]:
        to = tmp_path / "expanded.gguf"
        command = [NODE, tmp_path / "run.js", model, to, str(max_bytes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return to, done.stdout.strip() == "true"

    return run


def weights(path):
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(path).tensors}


@pytest.mark.parametrize("name", EXPANDED)
def test_expanded_weights_are_equal(name, expand, tmp_path):
    type_ = GGMLQuantizationType[name]
    write_uniform_model(tmp_path / "small.gguf", SHAPE, type_, GGMLQuantizationType.Q4_1)
    path, same = expand(tmp_path / "small.gguf")
    assert not same
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    assert types["token_embd.weight"] == "Q4_1" and types["blk.0.attn_q.weight"] == "Q8_0"
    before, after = weights(tmp_path / "small.gguf"), weights(path)
    assert before.keys() == after.keys()
    for tensor in before:
        np.testing.assert_array_equal(before[tensor], after[tensor])
    fields = [GGUFReader(file).fields.keys() for file in (tmp_path / "small.gguf", path)]
    assert fields[0] == fields[1]


@pytest.mark.parametrize("name", ["Q4_1", "Q4_K", "Q8_0"])
def test_other_types_stay(name, expand, tmp_path):
    type_ = GGMLQuantizationType[name]
    write_uniform_model(tmp_path / "small.gguf", SHAPE, type_, type_)
    assert expand(tmp_path / "small.gguf")[1]


def test_a_model_that_would_grow_too_large_stays(expand, tmp_path):
    write_uniform_model(tmp_path / "small.gguf", SHAPE, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_0)
    size = expand(tmp_path / "small.gguf")[0].stat().st_size
    assert not expand(tmp_path / "small.gguf", size)[1]
    assert expand(tmp_path / "small.gguf", size - 1)[1]


def write_field(path, kind, value=b""):
    """Write a file of a header alone: no tensor, and one metadata value."""
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", kind) + value + bytes(32))
    return path


STRING, ARRAY, UNKNOWN = 8, 9, 99


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(UNKNOWN, b"", id="unknown type"),
        pytest.param(ARRAY, struct.pack("<IQ", UNKNOWN, 1 << 60), id="array of an unknown type"),
        pytest.param(ARRAY, struct.pack("<IQ", ARRAY, 1 << 60), id="array of arrays"),
        pytest.param(ARRAY, struct.pack("<IQ", 0, 1 << 60), id="array longer than the file"),
        pytest.param(STRING, struct.pack("<Q", 1 << 60), id="string longer than the file"),
    ],
)
def test_a_damaged_value_is_an_error_at_once(kind, value, expand, tmp_path):
    """An array of an unknown type was read for ever."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        expand(write_field(tmp_path / "damaged.gguf", kind, value))
    assert "RangeError" in error.value.stderr


def test_a_model_with_a_long_header_stays(expand, tmp_path):
    """Python reads headers of more than the 32 MiB that the page searches, which was an error there."""
    length = 33 << 20
    assert expand(write_field(tmp_path / "long.gguf", STRING, struct.pack("<Q", length) + bytes(length)))[1]
