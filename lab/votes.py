"""Samples answers to questions under one prompt, and tells what votes or training make of them.

python lab/votes.py sample MODEL QUESTIONS OUT --prompt examples --count 60 --answers 8 --temperature 0.7
python lab/votes.py vote w=OUT b=OTHER --sequence wwwwbbbb wwww --certainty 0.8
python lab/votes.py rows OUT ROWS --most 3

A sequence takes the answers of the files by their letters, until the majority is certain. An interrupted
sampling resumes. The questions are those of `bench accuracy --limit 300`, in a fixed order. Rows are
right answers, as solutions for `thirteen train`.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.prompts import PROMPTS, Prompt
from thirteen.runtime.effort import VotingRule
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.engine.majority_vote import score
from thirteen.runtime.prompt.worked_examples import WORKED_EXAMPLES
from thirteen.runtime.request import COMPLETE_REASONS, Request, Sampling

_SLOTS, _AT_ONCE, _LIMIT = 24, 6, 300
_STRIDE = 137  # of the order, so that the first questions are from all parts of the set
_PROMPTS = PROMPTS | {"examples": Prompt("examples", shots=WORKED_EXAMPLES)}

Row = dict[str, Any]


def read(path: Path) -> dict[int, Row]:
    """Rows of a file by the numbers of their questions."""
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {row["number"]: row for row in rows}


def sample(given: argparse.Namespace) -> None:
    """Append the answers to the questions that the file lacks."""
    questions = load_question_set(given.questions).subsample(_LIMIT).questions
    order = [_STRIDE * at % len(questions) for at in range(min(given.count, len(questions)))]
    missing = [number for number in order if number not in read(given.out)]
    sampling = Sampling(given.temperature, min_p=given.min_p)
    samplings = sampling.with_seeds(given.answers)
    with (
        Engine(given.model, slots=_SLOTS, context=1024, queue=512, threads=given.threads) as engine,
        given.out.open("a") as file,
    ):
        for at in range(0, len(missing), _AT_ONCE):
            numbers = missing[at : at + _AT_ONCE]
            handles: dict[int, list[Handle]] = {}
            for number in numbers:
                text = questions[number].text
                tokens = engine.conversation(_PROMPTS[given.prompt].messages(text))
                requests = (
                    Request(tokens, 400, one, calculator=True, logprobs=0, question=text) for one in samplings
                )
                handles[number] = engine.submit_all([*requests])
            for number, asked in handles.items():
                answers = [
                    {"value": answer.value, "text": answer.text, "logprob": logprob}
                    | {"tokens": answer.usage.completion_tokens, "grounded": answer.grounded}
                    | {"vote": answer.stop_reason in COMPLETE_REASONS and all(s.ok for s in answer.steps)}
                    for answer, logprob in map(score, asked)
                ]
                question = {"question": questions[number].text, "answer": questions[number].answer}
                row = {"number": number, **question, "samples": answers}
                file.write(json.dumps(row) + "\n")
            file.flush()


def vote(given: argparse.Namespace) -> None:
    """Print right answers, and mean answers and tokens, of each sequence over the questions of all files."""
    files = {letter: read(Path(path)) for letter, path in (word.split("=", 1) for word in given.files)}
    common = sorted(set.intersection(*(set(rows) for rows in files.values())))
    for sequence in given.sequence:
        right = answers = tokens = 0
        for number in common:
            samples = {letter: list(rows[number]["samples"]) for letter, rows in files.items()}
            votes: Counter[str] = Counter()
            rule = VotingRule(len(sequence), certainty=given.certainty)
            for ended, letter in enumerate(sequence, 1):
                one = samples[letter].pop(0)
                answers, tokens = answers + 1, tokens + one["tokens"]
                if one["vote"] and one["value"] is not None:
                    votes[one["value"]] += 1
                first, second = [*(count for _, count in votes.most_common(2)), 0, 0][:2]
                if rule.is_decided(first, second, len(sequence) - ended):
                    break
            expected = next(iter(files.values()))[number]["answer"]
            right += bool(votes) and votes.most_common(1)[0][0] == expected
        count = len(common)
        means = f"{answers / count:.1f} answers, {tokens / count:.0f} tokens"
        print(f"{sequence}: {right} of {count} right, {means}")


def rows(given: argparse.Namespace) -> None:
    """Write the shortest right answers to each question as rows for `thirteen train`."""
    with given.out.open("w") as file:
        for row in read(given.answers).values():
            right = {one["text"] for one in row["samples"] if one["vote"] and one["value"] == row["answer"]}
            for solution in sorted(right, key=len)[: given.most]:
                fields = {"question": row["question"], "solution": solution, "answer": row["answer"]}
                file.write(json.dumps(fields) + "\n")


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sampler = commands.add_parser("sample")
    sampler.add_argument("model", type=Path)
    sampler.add_argument("questions")
    sampler.add_argument("out", type=Path)
    sampler.add_argument("--prompt", choices=_PROMPTS, default="examples")
    for name, default in (("--count", 60), ("--answers", 8), ("--threads", 1)):
        sampler.add_argument(name, type=int, default=default)
    for name, number in (("--temperature", 0.7), ("--min-p", 0.05)):
        sampler.add_argument(name, type=float, default=number)
    sampler.set_defaults(run=sample)
    voter = commands.add_parser("vote")
    voter.add_argument("files", nargs="+")
    voter.add_argument("--sequence", nargs="+", required=True)
    voter.add_argument("--certainty", type=float, default=2)
    voter.set_defaults(run=vote)
    writer = commands.add_parser("rows")
    writer.add_argument("answers", type=Path)
    writer.add_argument("out", type=Path)
    writer.add_argument("--most", type=int, default=3)
    writer.set_defaults(run=rows)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
