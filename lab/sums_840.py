"""Makes the shipped adapter smollm2-135m-sums-840: 840 numbers, by gradients on worked solutions.

python lab/sums_840.py FOLDER [--rows 1064]

It takes 5 minutes on two cores, and writes the sums and the basis into the folder too.
"""

import argparse
import json
from pathlib import Path

from thirteen.convert.adapter.basis import BasisOrigin, make_basis, write_basis
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.lab.sums import draw_sums
from thirteen.learn.sft import SftResult
from thirteen.workflows.adapter_resolver import base_file, catalogue_name
from thirteen.workflows.training import TrainingRequest, run_training

SEED = 13


def main() -> None:
    """Write the sums and the basis, and train on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1064)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    data, basis = given.folder / "sums.jsonl", given.folder / "basis-840.safetensors"
    data.write_text("".join(f"{json.dumps(vars(row))}\n" for row in draw_sums(given.rows, SEED)))
    name = catalogue_name("embedded") or ""
    checkpoint = open_checkpoint(base_file(name))
    origin = BasisOrigin(name, checkpoint.sha256(), numbers=840, groups=30)
    write_basis(make_basis(checkpoint, origin), basis)
    request = TrainingRequest(
        base="embedded",
        output=given.folder / "smollm2-135m-sums-840",
        data=data,
        kind="tinylora",
        basis=basis,
        final_line=False,
        calculator=True,
        held_out=64,
        bf16=False,
    )
    result = run_training(request, "python lab/sums_840.py FOLDER")
    assert isinstance(result, SftResult)
    print(f"loss: {result.held_out.difference.text(4)} nats per token (95 %)")


if __name__ == "__main__":
    main()
