"""Merge an adapter into a base, write a file of a given size, and print what was kept."""

from pathlib import Path

from thirteen.bench.fidelity.conversion import run_conversion
from thirteen.models.conversion import ConversionRequest

request = ConversionRequest(
    base="my-base",  # a folder of safetensors, a GGUF, a hub id or a catalogue name
    adapter="my-lora",  # a PEFT folder, a hub id, a catalogue name or a short code
    size="4.5bpw",  # or bytes: 600MB
    output=Path("my-model.gguf"),
)
result = run_conversion(request.resolve())
layout = result.conversion.layout
print(f"{layout.file_bytes:,} bytes")
for name, share in layout.types.items():
    print(f"{share.tensors} tensors in {name}, {share.nbytes:,} bytes")
if result.fidelity:
    print("\n".join(result.fidelity.verdict))
