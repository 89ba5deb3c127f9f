"""Decode with drafts of prompt lookup, and without, over ik_llama.cpp.

python lab/prompt_lookup.py MODEL QUESTIONS.jsonl [--count 20] [--seconds 300] [--threads N]

Each question is answered greedily in both ways, in turns. The ratio is of the seconds of a token.
"""

import argparse
import json
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from thirteen import Engine
from thirteen.runtime.machine.threads import default_threads
from thirteen.runtime.native.settings import DRAFT_TOKENS
from thirteen.stats.paired_ratio import paired_ratio, ratio_level


def main() -> None:
    """Print the seconds of a token in each way, the steps of a token, and how many texts differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--threads", type=int, default=default_threads())
    given = parser.parse_args()
    lines = given.questions.read_text("utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines[:: max(len(lines) // given.count, 1)]]
    began, seconds, differing, steps = perf_counter(), [], 0, [0, 0]
    with Engine(given.model, library="ik", slots=1, context=1024, threads=given.threads) as engine:
        engine.answer(questions[0], max_tokens=16)
        decode = engine._runner._context.decode
        for number, question in enumerate(islice(questions, given.count)):
            pair, texts = [0.0, 0.0], ["", ""]
            for way in (0, 1) if number % 2 else (1, 0):

                def counted(spans, way=way):  # type: ignore[no-untyped-def]
                    steps[way] += len(spans[0].tokens) <= 1 + DRAFT_TOKENS["ik"]
                    return decode(spans)

                engine._runner._context.decode = counted  # type: ignore[method-assign]
                engine._runner._draft_tokens = DRAFT_TOKENS["ik"] * way
                answer = engine.answer(question, max_tokens=300)
                pair[way] = answer.timings.decode_s / max(answer.usage.completion_tokens - 1, 1)
                texts[way] = answer.text
            seconds.append(pair)
            differing += texts[0] != texts[1]
            if perf_counter() - began > given.seconds:
                break
    without, drafts = np.array(seconds).T
    print(f"{len(seconds)} questions, {differing} texts differ; steps {steps[0]} and {steps[1]}")
    print(f"ms a token {1000 * without.mean():.1f} and {1000 * drafts.mean():.1f}")
    print(f"speed with drafts / without, {ratio_level(len(seconds))}: {paired_ratio(drafts, without)}")


if __name__ == "__main__":
    main()
