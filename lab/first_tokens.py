"""Whether 13 numbers do more than choose the first tokens of an answer (compare arXiv 2509.06608).

python lab/first_tokens.py 0.5b.gguf svamp.jsonl FOLDER [--threads 2]

The model is the file that the code `qwen2.5-coder-0.5b-svamp` belongs to, svamp.jsonl the first 500 rows of
SVAMP. All answers are journals in FOLDER, from which an interrupted run resumes. Registered before the
first run:

- Questions: the 300 held out, and the 140 learned from, in lab/results/train-more-numbers.json. What is
  chosen is chosen on the 140: worked examples and beginnings of answers on the first 80, the best of them
  on the last 60.
- Answers: greedy, at most 300 tokens, with the calculator; one that is cut off is wrong.
- Arms: the base; the base with the best of nine prompts; with the best of up to 14 forced beginnings, which
  are the first 1, 2, 4 and 8 tokens with which the 13 numbers most often begin, and the ten most frequent
  first four tokens of right answers of either; forced to begin each answer with the first 8 tokens of the
  13 numbers' own answer; three random vectors of 13 numbers, normally distributed with seeds 1 to 3, scaled
  to the mean KL divergence per token that the learned ones have from the base, within 5 %, on the base's
  answers to the first 8 of the 140; the learned 13; the learned 13 forced to begin as the base's own answer
  begins, 8 tokens. What is forced is at most half of an answer.
- Then, of the first 100 of the 300: whether any of 8 answers of the base at temperature 0.7 with seed 13 is
  right (the ceiling of a choice among its own answers); base and learned with medium and with high effort.
- Analysis: the difference of right answers to the base, and to the learned 13, in pairs, with Newcombe's 95
  % interval. If the 13 numbers only choose the first tokens, then the base that is forced to begin as they
  do gains as much as they do, and they gain nothing if they are forced to begin as the base does.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from thirteen.convert.adapter.basis import write_tinylora_folder
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.adapter.short_code import ShortCode
from thirteen.learn.base_model import Tokenizer, open_tokenizer
from thirteen.learn.prompt_search import candidates, own_examples
from thirteen.learn.rollouts import QuestionRollouts, RolloutSettings, is_correct, sample_rollouts
from thirteen.models.adapter import basis_of_code, find_adapter
from thirteen.models.base import resolve_base
from thirteen.models.rows import TrainingRow, read_rows
from thirteen.runtime.batch.reproducible_batches import ENGINE, BatchJob, BatchSettings, answer_missing
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import log_softmax
from thirteen.runtime.options import Effort, Options
from thirteen.runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from thirteen.stats import Doubles
from thirteen.stats.intervals import count_pairs, paired_difference

ADAPTER = "qwen2.5-coder-0.5b-svamp"
ROWS = Path(__file__).parent / "results/train-more-numbers.json"
LENGTHS, FORCED, FREQUENT = (1, 2, 4, 8), 8, 10
OPTIONS = Options(max_tokens=300, seed=13)
Answers = list[QuestionRollouts]
Texts = Sequence[tuple[Sequence[int], Sequence[int]]]  # prompts and answers in tokens


@dataclass(frozen=True)
class Arms:
    """Answers questions with the model, its adapters and any prompts, in journals of a folder."""

    model: Path
    folder: Path
    threads: int
    text: Callable[[Sequence[int]], str]  # of tokens

    def job(self, settings: BatchSettings, adapter: Path | None) -> BatchJob:
        """A job with 48 slots."""
        return BatchJob(self.model, adapter, settings, self.threads, replace(ENGINE, slots=48, context=1024))

    def answer(
        self,
        name: str,
        rows: Sequence[TrainingRow],
        prompts: Sequence[QuestionPrompt] = (PLAIN,),
        adapter: Path | None = None,
        solutions: int = 1,
    ) -> Answers:
        """Answers to questions, after the prompts in turn; greedy, unless several are wanted."""
        options = replace(OPTIONS, temperature=0.7 if solutions > 1 else 0.0)
        settings = RolloutSettings(solutions=solutions, options=options, prompts=tuple(prompts))
        found = sample_rollouts(self.job(settings, adapter), rows, self.folder / f"{name}.jsonl")
        print(f"{name}: {sum(one.right > 0 for one in found)} of {len(found)}", flush=True)
        return found

    def vote(self, rows: Sequence[TrainingRow], effort: Effort, adapter: Path | None) -> list[bool]:
        """Whether the answers of votes are right."""
        job = self.job(BatchSettings(options=replace(OPTIONS, effort=effort)), adapter).decided()
        right = [False] * len(rows)
        with closing(answer_missing(job, {at: row.question for at, row in enumerate(rows)}, ())) as results:
            for one in results:
                right[one.number] = one.answer is not None and is_correct(one.answer, rows[one.number])
        print(f"{effort} effort, {adapter}: {sum(right)} of {len(right)}", flush=True)
        return right

    def begins(self, answers: Answers, length: int) -> list[str]:
        """The first tokens of each answer, as text; never a whole answer."""
        tokens = (one.solutions[0].tokens for one in answers)
        return [self.text(some[: min(length, len(some) // 2)]) for some in tokens]

    def best(self, found: Sequence[QuestionPrompt], rows: Sequence[TrainingRow], name: str) -> QuestionPrompt:
        """The prompt with the most right answers; the first of equals."""
        answers = self.answer(name, [row for row in rows for _ in found], found)
        right = [sum(one.right for one in answers[at :: len(found)]) for at in range(len(found))]
        print(*(f"  {count} {one.json[:100]}" for count, one in zip(right, found, strict=True)), sep="\n")
        return found[right.index(max(right))]

    def log_probabilities(self, texts: Texts, adapter: Path | None) -> Iterator[Doubles]:
        """Log-probabilities of each token of the answers to prompts, (tokens, vocabulary) for each."""
        options: dict[str, Any] = {"threads": self.threads, "context": 1024, "library": "llama.cpp"}
        with Engine(self.model, adapter=adapter, **options) as engine:
            for prompt, answer in texts:
                yield log_softmax(engine.logits([*prompt, *answer])[len(prompt) - 1 : -1])


def random_adapters(arms: Arms, code: ShortCode, learned: Path, texts: Texts) -> Iterator[Path]:
    """Write LoRAs of three random vectors with the KL divergence of the learned one; yields the files."""
    base = resolve_base(str(arms.model))
    basis = basis_of_code(code, base)
    plain = [*arms.log_probabilities(texts, None)]

    def divergence(adapter: Path) -> float:
        pairs = zip(plain, arms.log_probabilities(texts, adapter), strict=True)
        return float(np.concatenate([(np.exp(p) * (p - q)).sum(axis=1) for p, q in pairs]).mean())

    wanted = divergence(learned)
    for seed in (1, 2, 3):
        numbers = np.random.default_rng(seed).standard_normal(len(code.numbers))
        numbers *= np.linalg.norm(code.numbers) / np.linalg.norm(numbers)
        for step in range(12):
            folder = arms.folder / f"random-{seed}-{step}"
            if not folder.exists():
                write_tinylora_folder(basis, numbers.astype(np.float32), folder, code.name)
                export_adapter(folder, arms.model, folder / "lora.gguf")
            found = divergence(folder / "lora.gguf")
            print(f"random {seed}: KL {found:.5f} of {wanted:.5f}", flush=True)
            if abs(found / wanted - 1) < 0.05:
                break
            numbers *= np.sqrt(wanted / found)
        yield folder / "lora.gguf"


def compare(name: str, right: Sequence[bool], other: Sequence[bool]) -> str:
    """A difference in pairs, in points."""
    both, gained, lost, neither = count_pairs(zip(other, right, strict=True))
    difference = paired_difference(both, gained, lost, neither).text(1, 100)
    return f"{name}: {difference}, {gained} gained, {lost} lost"


def run(arms: Arms, tokenizer: Tokenizer, svamp: Sequence[TrainingRow]) -> dict[str, Any]:
    """Run all arms; returns what was chosen, and which answers are right."""
    numbers = json.loads(ROWS.read_text())["runs"][12]["rows_of_svamp"]
    trained = [svamp[int(at)] for at in numbers["rollouts"].split()]
    held_out = [svamp[int(at)] for at in numbers["held_out"].split()]
    adapter = find_adapter(ADAPTER)
    assert isinstance(adapter.content, ShortCode)
    lora = adapter.lora(arms.model)
    of_base = arms.answer("pool-base", trained[:80])
    of_learned = arms.answer("pool-13", trained[:80], adapter=lora)
    begins = [Counter(arms.begins(of_learned, length)).most_common(1)[0][0] for length in LENGTHS]
    right = [one for one in [*of_base, *of_learned] if one.right]
    begins += [text for text, _ in Counter(arms.begins(right, 4)).most_common(FREQUENT)]
    base, learned = arms.answer("base", held_out), arms.answer("13", held_out, adapter=lora)
    found = {"base": base, "13 numbers": learned}
    as_13 = [QuestionPrompt(begin=text) for text in arms.begins(learned, FORCED)]
    as_base = [QuestionPrompt(begin=text) for text in arms.begins(base, FORCED)]
    found["base, begins as the 13"] = arms.answer("base-as-13", held_out, as_13)
    found["13 numbers, begin as the base"] = arms.answer("13-as-base", held_out, as_base, lora)
    texts = [(tokenizer.prompt(one.question), one.solutions[0].tokens) for one in of_base[:8]]
    for seed, file in enumerate(random_adapters(arms, adapter.content, lora, texts), 1):
        found[f"random {seed}"] = arms.answer(f"random-{seed}", held_out, adapter=file)
    beginnings = [QuestionPrompt(begin=text) for text in dict.fromkeys(begins)]
    begin = arms.best(beginnings, trained[80:], "beginnings")
    found["base, best beginning"] = arms.answer("base-begin", held_out, [begin])
    prompts = [one.prompt for one in candidates(own_examples(of_base, tokenizer))]
    prompt = arms.best(prompts, trained[80:], "prompts")
    found["base, best prompt"] = arms.answer("base-prompt", held_out, [prompt])
    results = {name: [one.right > 0 for one in answers] for name, answers in found.items()}
    few = held_out[:100]
    results["base, any of 8"] = [one.right > 0 for one in arms.answer("pass-8", few, solutions=8)]
    for effort in (Effort.MEDIUM, Effort.HIGH):
        results[f"base, {effort} effort"] = arms.vote(few, effort, None)
        results[f"13 numbers, {effort} effort"] = arms.vote(few, effort, lora)
    return {"beginning": begin.begin, "prompt": prompt.json, "right": results}


def main() -> None:
    """Run all arms, print their right answers with the differences, and write them to the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("svamp", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with open_tokenizer(given.model) as tokenizer:
        arms = Arms(given.model, given.folder, given.threads, tokenizer.text)
        results = run(arms, tokenizer, read_rows(given.svamp, ("answer",)))
    for name, right in results["right"].items():
        against = (compare(of, right, results["right"][of][: len(right)]) for of in ("base", "13 numbers"))
        print(f"{name}: {sum(right)} of {len(right)}", *against, sep="; ")
    results["right"] = {name: "".join("01"[one] for one in right) for name, right in results["right"].items()}
    (given.folder / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
