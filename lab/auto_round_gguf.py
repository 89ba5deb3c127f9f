"""AutoRound's own GGUF export (arXiv 2309.05516), on the text that the importance is measured on.

python lab/auto_round_gguf.py FULL.gguf SCHEME STEPS FOLDER

FULL.gguf is a model in F32 or F16. SCHEME is a name such as Q4_K_S or Q2_K_S. STEPS are those of its tuning
per layer: 0 for its optimized rounding to nearest, 50 for its "light" recipe, 200 by default. The GGUF is
written to FOLDER, for `python lab/kl_curve.py --file autoround=FILE`. It needs
`pip install "auto-round>=0.16" "sentencepiece>=0.2" "torch>=2.6" "transformers>=5.20.2"`.
"""

import argparse
from pathlib import Path

import torch
from auto_round import AutoRound
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.models.texts import calibration_texts
from thirteen.runtime.machine.threads import default_threads
from thirteen.workflows.importance_cache import calibration_chunks
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 4  # chunks


def write_checkpoint(source: Path, folder: Path) -> None:
    """Write the model of a GGUF as a Hugging Face checkpoint, which AutoRound reads."""
    path, name = source.parent, source.name
    model = AutoModelForCausalLM.from_pretrained(path, gguf_file=name, dtype=torch.float32)
    # transformers marks it as quantized, and then refuses to save it.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path, gguf_file=name).save_pretrained(folder)


def quantize(source: Path, scheme: str, steps: int, folder: Path) -> None:
    """Quantize a model."""
    torch.set_num_threads(default_threads())
    texts = calibration_chunks(open_checkpoint(source), calibration_texts())
    chunks = [torch.tensor([chunk]) for chunk in texts]  # (1, tokens) each
    write_checkpoint(source, folder / "checkpoint")
    quantizer = AutoRound(
        str(folder / "checkpoint"),
        scheme=f"GGUF:{scheme}",
        iters=steps,
        dataset=chunks,
        seqlen=max(chunk.shape[1] for chunk in chunks),
        nsamples=len(chunks),
        batch_size=min(BATCH, len(chunks)),
        device_map="cpu",
        low_gpu_mem_usage=False,
    )
    quantizer.quantize_and_save(str(folder), format=f"gguf:{scheme.lower()}")
    print(*folder.rglob("*.gguf"), sep="\n")


def main() -> None:
    """Quantize as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, metavar="FULL.gguf")
    parser.add_argument("scheme")
    parser.add_argument("steps", type=int)
    parser.add_argument("folder", type=Path)
    quantize(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
