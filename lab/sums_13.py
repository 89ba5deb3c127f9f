"""Makes the shipped adapter smollm2-135m-sums-13: 13 numbers, by forward passes of the quantized model only.

python lab/sums_13.py FOLDER [--generations 36] [--population 12] [--questions 32] [--checks 200]
    [--held-out 832] [--threads 1]

It needs `pip install cma`, and 43 minutes on one core. CMA-ES proposes vectors of 13 numbers; each becomes a
run-time LoRA of the embedded model. Its score is the likelihood of the solutions to a few sums, without the
results that the calculator inserts. All candidates of a generation have the same sums; each generation draws
others. The mean is checked on separate sums. The best mean is saved, and measured on held-out sums.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cma
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray
from thirteen.convert.adapter.basis import Basis, write_tinylora_folder
from thirteen.convert.adapter.short_code import round_to_bfloat16
from thirteen.convert.source.architecture import permute
from thirteen.convert.source.checkpoint import Checkpoint, open_checkpoint
from thirteen.convert.tensors import TensorSpec, plan_tensor
from thirteen.convert.write import write_gguf
from thirteen.files.gguf.header import Field
from thirteen.lab.continuation_scorer import ContinuationScorer
from thirteen.lab.sums import draw_sums
from thirteen.learn.rollouts import is_correct
from thirteen.models.adapter import find_basis
from thirteen.models.base import resolve_base
from thirteen.models.embedded import default_model
from thirteen.models.rows import TrainingRow, split_rows
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.output_stream import sampled_mask
from thirteen.runtime.llama.model import LoraAdapter
from thirteen.runtime.llama.settings import Settings
from thirteen.stats.intervals import count_pairs, paired_difference

Numbers = NDArray[np.float64]
SEED = 13
SIGMA = 0.02
CHECK_EVERY = 6  # generations
MAX_TOKENS = 32
# ggml's tiled kernel needs multiples of 16: 2,000 tokens take 4.63 s with rank 2, 3.49 s with rank 16.
RANK = 16
# Nothing is measured, so that every run scores alike; without a prefix cache.
OPTIONS: dict[str, Any] = {
    **{"context": 512, "slots": 16, "kv": "f16", "prefix_bytes": 0, "flash_attention": True},
    "queue": 1 << 16,
}


@dataclass(frozen=True)
class Candidates:
    """Candidate adapters of one engine.

    Attributes:
        engine: runs the quantized model.
        basis: basis of the numbers.
        checkpoint: the same model, for the names and the order of its rows.
        lora: file that each candidate is written to.
        scoring: parameters of the context in which solutions are scored.
    """

    engine: Engine
    basis: Basis
    checkpoint: Checkpoint
    lora: Path
    scoring: Settings

    def write(self, numbers: Numbers) -> None:
        """Write the adapter of `numbers`."""
        tensors = dict[str, NDArray[np.float32]]()
        for module, factors in self.basis.factors.items():
            spec = self.checkpoint.specs[f"{module}.weight"]
            b = factors.b @ factors.inner_matrix(numbers.astype(np.float32))
            b = permute(b, spec.heads) if spec.heads else b
            padding = (0, RANK - len(factors.a))
            tensors[f"{spec.target}.lora_a"] = np.pad(factors.a, (padding, (0, 0)))
            tensors[f"{spec.target}.lora_b"] = np.pad(b, ((0, 0), padding))
        fields = {
            "general.architecture": Field(self.checkpoint.architecture.name, GGUFValueType.STRING),
            "general.type": Field("adapter", GGUFValueType.STRING),
            "adapter.type": Field("lora", GGUFValueType.STRING),
            "adapter.lora.alpha": Field(float(RANK), GGUFValueType.FLOAT32),
        }
        specs = (TensorSpec(name, name, rows.shape) for name, rows in tensors.items())
        plans = [plan_tensor(spec, GGMLQuantizationType.F32) for spec in specs]
        blocks = (rows.tobytes() for rows in tensors.values())
        write_gguf(self.lora, fields, plans, blocks)

    def score(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> float:
        """The mean log-likelihood of a token that the model samples in a solution."""
        model = self.engine.model
        assert model.eos is not None
        solutions = [[*model.tokenize(row.solution, special=False, bos=False), model.eos] for row in rows]
        prompts = [self.engine.request(row.question).tokens for row in rows]
        pairs = list(zip(prompts, solutions, strict=True))
        self.write(numbers)
        with ExitStack() as handles:
            adapter = handles.enter_context(LoraAdapter(model, self.lora))
            scorer = handles.enter_context(ContinuationScorer(model, self.scoring, adapter))
            scores = scorer.score(pairs)
        found = zip(scores, solutions, strict=True)
        means = [np.mean(np.array(logprobs)[sampled_mask(model, tokens)]) for logprobs, tokens in found]
        return float(np.mean(means))

    def right(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        """Whether each sum is solved within the limit of tokens."""
        self.write(numbers)
        adapter = self.lora if numbers.any() else None  # else the base itself
        settings, model = self.engine.plan.settings, self.engine.model.header.path
        with Engine(model, adapter=adapter, untrusted=False, threads=settings.threads, **OPTIONS) as engine:
            answers = engine.answers([row.question for row in rows], max_tokens=MAX_TOKENS)
        return [is_correct(answer, row) for answer, row in zip(answers, rows, strict=True)]


@contextmanager
def open_candidates(basis: Basis, threads: int) -> Iterator[Candidates]:
    """Load the embedded model."""
    model = default_model(None)
    with TemporaryDirectory() as folder, Engine(model, threads=threads, **OPTIONS) as engine:
        scoring = Settings(512, 8, 512, outputs=128, threads=threads)
        yield Candidates(engine, basis, open_checkpoint(model), Path(folder) / "candidate.gguf", scoring)


def search(candidates: Candidates, generations: int, population: int, questions: int, checks: int) -> Numbers:
    """Search for the numbers with the best check, from zeros; rounded to bfloat16."""
    pool, checked = split_rows(draw_sums(3000, SEED), checks, SEED)
    best = np.zeros(candidates.basis.origin.numbers)
    most = sum(candidates.right(best, checked))
    print(f"generation 0: {most} of {checks} right", flush=True)
    rng = np.random.default_rng([SEED, 0])
    options = {
        "popsize": population,
        "seed": np.nan,  # cma would seed numpy for the whole process
        "randn": lambda *shape: rng.standard_normal(shape),
        "verbose": -9,
    }
    evolution = cma.CMAEvolutionStrategy(best, SIGMA, options)
    for generation in range(1, generations + 1):
        rows = random.Random(f"{SEED} {generation - 1}").sample(pool, questions)
        proposed = [np.asarray(one) for one in evolution.ask()]
        scores = [candidates.score(one, rows) for one in proposed]
        evolution.tell(proposed, [-score for score in scores])
        line = f"generation {generation}: best {max(scores):.4f}, mean {np.mean(scores):.4f}"
        if generation % CHECK_EVERY == 0 or generation == generations:
            mean = np.array(evolution.mean)
            right = sum(candidates.right(mean, checked))
            line += f", {right} of {checks} right"
            if right > most:
                best, most = mean, right
        print(line, flush=True)
    return round_to_bfloat16(best.astype(np.float32)).astype(np.float64)


def measure(candidates: Candidates, numbers: Numbers, rows: Sequence[TrainingRow]) -> str:
    """Effect of the numbers on held-out sums, in words."""
    before, after = (candidates.right(one, rows) for one in (np.zeros_like(numbers), numbers))
    difference = paired_difference(*count_pairs(zip(before, after, strict=True)))
    points = f"{difference.text(1, 100)} points (95 %)"
    return f"{sum(before)} of {len(rows)} right before, {sum(after)} after: {points}"


def main() -> None:
    """Search, save the adapter, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generations", type=int, default=36)
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--checks", type=int, default=200)
    parser.add_argument("--held-out", type=int, default=832)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    base = resolve_base("embedded", original=True)
    basis = find_basis(base)
    with open_candidates(basis, given.threads) as candidates:
        numbers = search(candidates, given.generations, given.population, given.questions, given.checks)
        write_tinylora_folder(basis, numbers.astype(np.float32), given.folder, base.trained_id)
        print(measure(candidates, numbers, draw_sums(1000, SEED, held_out=True)[: given.held_out]))


if __name__ == "__main__":
    main()
