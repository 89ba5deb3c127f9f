"""AutoRound's own GGUF export (arXiv 2309.05516), in a process of its own: it needs torch, and takes minutes.

`python -m thirteen.bench.size.auto_round --scheme Q4_K_M --iterations 0 --chunks CHUNKS.json FULL.gguf
FOLDER` quantizes a model with AutoRound's own settings, calibrated on the given tokens.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ...errors import OutputError, one_line
from ...files.atomic_write import atomic_write
from ...files.temporary_folder import temporary_folder
from ...runtime.threads import physical_cores
from ..harness.isolated import print_outcome, run_in_subprocess

# llama.cpp's mix of the same types, by AutoRound's name of the scheme: their files have about the same size.
SCHEMES = {
    "Q2_K_S": "Q2_K",
    **{name: name for name in ("Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M")},
    **{name: name for name in ("Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0")},
}
_BATCH = 4  # chunks


def quantize_with_auto_round(  # noqa: PLR0913 - the settings of another program
    source: Path,
    target: Path,
    scheme: str,
    *,
    iterations: int,
    chunks: Sequence[Sequence[int]],
    threads: int | None = None,
    timeout_s: float | None = None,
) -> None:
    """Quantize a model with AutoRound. The target is written atomically.

    Args:
        source: a model in F32 or F16.
        target: the GGUF to write.
        scheme: one of SCHEMES.
        iterations: steps of its tuning per layer; 0 for its optimized rounding to nearest.
        chunks: calibration text, as the token ids of each chunk.
        threads: compute threads; by default one per physical core.
        timeout_s: seconds after which the process is killed.

    Raises:
        OutputError: AutoRound fails, crashes or takes too long.
    """
    with temporary_folder("auto-round", target.parent) as folder:
        (folder / "chunks.json").write_text(json.dumps(chunks))
        settings = {
            "scheme": scheme,
            "iterations": iterations,
            "chunks": folder / "chunks.json",
            "threads": threads or physical_cores(),
        }
        outcome = run_in_subprocess(
            __name__,
            [*(f"--{name}={value}" for name, value in settings.items()), "--", str(source), str(folder)],
            lambda status, last: OutputError(f"its process ended with status {status}: {last}"),
            {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            timeout_s=timeout_s,
        )
        with atomic_write(target) as part, Path(outcome["file"]).open("rb") as made:
            shutil.copyfileobj(made, part)


def _quantize_in_worker(args: argparse.Namespace) -> dict[str, Any]:
    checkpoint, output = args.folder / "checkpoint", args.folder / "gguf"
    with redirect_stdout(sys.stderr):  # standard output is for the result
        try:
            _write_checkpoint(args.source, checkpoint)
            _run_auto_round(args, checkpoint, output)
        except Exception as error:
            raise OutputError(one_line(error)) from error
    made = list(output.rglob("*.gguf"))
    if len(made) != 1:
        raise OutputError(f"it wrote {len(made)} GGUF files instead of one")
    return {"file": str(made[0])}


def _write_checkpoint(source: Path, folder: Path) -> None:
    """Write the model of a GGUF as a Hugging Face checkpoint, which AutoRound reads."""
    import torch  # noqa: PLC0415 - only in the worker
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - only in the worker

    path, name = source.parent, source.name
    model = AutoModelForCausalLM.from_pretrained(path, gguf_file=name, dtype=torch.float32)
    # transformers marks it as quantized, and then refuses to save it.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path, gguf_file=name).save_pretrained(folder)


def _run_auto_round(args: argparse.Namespace, checkpoint: Path, output: Path) -> None:
    import torch  # noqa: PLC0415 - only in the worker
    from auto_round import AutoRound  # noqa: PLC0415 - only in the worker

    torch.set_num_threads(args.threads)
    chunks = [torch.tensor([chunk]) for chunk in json.loads(args.chunks.read_text())]  # (1, tokens) each
    quantizer = AutoRound(
        str(checkpoint),
        scheme=f"GGUF:{args.scheme}",
        iters=args.iterations,
        dataset=chunks,
        seqlen=max(chunk.shape[1] for chunk in chunks),
        nsamples=len(chunks),
        batch_size=min(_BATCH, len(chunks)),
        device_map="cpu",
        low_gpu_mem_usage=False,
    )
    quantizer.quantize_and_save(str(output), format=f"gguf:{args.scheme.lower()}")


def main() -> int:
    """Quantize the file given on the command line and print the path of the new one; errors are JSON too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="FULL.gguf")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--scheme", choices=SCHEMES, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--chunks", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=physical_cores())
    args = parser.parse_args()
    return print_outcome(lambda: _quantize_in_worker(args))


if __name__ == "__main__":
    sys.exit(main())
