"""Makes the shipped adapter smollm2-135m-sums-13, as its card says; 43 minutes on one core.

python lab/sums_13.py FOLDER
"""

import shlex
import subprocess
import sys
from pathlib import Path

TUNE = (
    "tune --data sums.jsonl --held-out-data sums-held-out.jsonl --output smollm2-135m-sums-13 --questions 32 "
    "--generations 36 --check-every 6 --sigma 0.02 --max-tokens 32 --held-out 832 --threads 1"
)


def main() -> None:
    """Write the sums, and tune on them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    sums = Path(__file__).with_name("sums.py").resolve()
    for command in ((str(sums), "sums"), ("-m", "thirteen", *shlex.split(TUNE))):
        subprocess.run((sys.executable, *command), cwd=folder, check=True)


if __name__ == "__main__":
    main()
