"""Worked examples that stand before a question which is answered several times: answers become short.

With them, an answer has about a third of the tokens, and a vote takes a third of the time. A base without a
chat template learns from them that a question has an answer.
"""

from collections.abc import Sequence

from .prompt_encoder import Message, example_messages

WORKED_EXAMPLES = (
    (
        "A box has 12 pens. Tom takes 5 of them and then puts 2 back. How many pens are in the box?",
        "Tom takes 5 of the 12 pens and puts 2 back, so the box has 12 - 5 + 2 = 9 pens. The answer is 9.",
    ),
    (
        "Each of 6 bags has 8 apples. Ann eats 3 of the apples. How many apples are left?",
        "Each of the 6 bags has 8 apples and 3 apples are eaten, so 6 * 8 - 3 = 45 apples are left. "
        "The answer is 45.",
    ),
    (
        "A book of 120 pages costs 15 dollars. Mia reads 30 pages every day. How many days does she read?",
        "She reads 30 of the 120 pages every day, so she reads for 120 / 30 = 4 days. The answer is 4.",
    ),
    (
        "Ben is 14 years old. He is 5 years older than Eva. How old will Eva be in 3 years?",
        "Eva is 5 years younger than Ben, who is 14, and 3 years pass, so she will be 14 - 5 + 3 = 12. "
        "The answer is 12.",
    ),
)


_LABELS = {"user": "Question: ", "assistant": "Answer: "}
COMPLETION_STOP = "\nQuestion:"  # with which a base would go on after its answer


def as_completion(messages: Sequence[Message]) -> str:
    """The conversation after worked examples as a text that ends where the answer comes."""
    shown = [*with_worked_examples(()), *messages]
    turns = (_LABELS.get(one.role, "") + one.content + "\n" * (1 + (one.role != "user")) for one in shown)
    return "".join(turns) + "Answer:"


def with_worked_examples(messages: Sequence[Message]) -> list[Message]:
    """The conversation with worked examples before its first question."""
    first = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    return [*messages[:first], *example_messages(WORKED_EXAMPLES), *messages[first:]]
