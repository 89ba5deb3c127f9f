"""Makes the shipped adapter smollm2-135m-sums-840, as its card says; 5 minutes on two cores.

python lab/sums_840.py FOLDER
"""

import shlex
import subprocess
import sys
from pathlib import Path

BASIS = "adapter basis embedded --numbers 840 --groups 30 --output basis-840.safetensors"
TRAIN = (
    "train embedded --data sums.jsonl --kind tinylora --calculator --no-final-line --held-out 64 "
    "--basis basis-840.safetensors --no-bf16 --output smollm2-135m-sums-840"
)


def main() -> None:
    """Write the sums and the basis, and train on them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    sums = Path(__file__).with_name("sums.py").resolve()
    thirteen = (("-m", "thirteen", *shlex.split(line)) for line in (BASIS, TRAIN))
    for command in ((str(sums), "sums", "--rows", "1064"), *thirteen):
        subprocess.run((sys.executable, *command), cwd=folder, check=True)


if __name__ == "__main__":
    main()
