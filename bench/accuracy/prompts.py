"""Prompts for math questions: zero-shot, refined instructions, and eight worked examples."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

from ...errors import RequestError
from ...runtime.prompt.prompt_encoder import Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text around a question.

    Attributes:
        name: name by which it is selected.
        before: text before the question.
        after: text after the question.
        shots: examples that come first, each a question and its answer.
        stop: stop strings, because a model without a chat template continues with another question.
    """

    name: str
    before: str = ""
    after: str = ""
    shots: tuple[tuple[str, str], ...] = ()
    stop: tuple[str, ...] = ("\nQ:",)

    @property
    def sha256(self) -> str:
        """Hash of all texts, in hexadecimal."""
        return sha256(json.dumps(asdict(self)).encode()).hexdigest()

    def messages(self, question: str) -> Sequence[Message]:
        """Format a question as a chat, in which each example is two messages."""
        examples = [
            message
            for shot, answer in self.shots
            for message in (Message("user", shot), Message("assistant", answer))
        ]
        return [*examples, Message("user", self._wrap(question))]

    def text(self, question: str) -> str:
        """Format a question as plain text to continue, for a model without a chat template."""
        examples = "".join(f"Q: {shot}\nA: {answer}\n\n" for shot, answer in self.shots)
        return f"{examples}Q: {self._wrap(question)}\nA:"

    def _wrap(self, question: str) -> str:
        return f"{self.before}{question}{self.after}"


def find_prompt(name: str) -> Prompt:
    """Look up a prompt by its name.

    Raises:
        RequestError: no prompt has that name.
    """
    if name not in PROMPTS:
        raise RequestError(f"prompt: {name!r} is not one of {', '.join(PROMPTS)}")
    return PROMPTS[name]


# The examples of J. Wei et al., Chain-of-Thought Prompting Elicits Reasoning in Large Language Models, 2022
# (arXiv 2201.11903), table 20: the usual ones for results on GSM8K "with 8-shot chain of thought".
_WEI = (
    (
        "There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are "
        "done, there will be 21 trees. How many trees did the grove workers plant today?",
        "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must "
        "have been 21 - 15 = 6. The answer is 6.",
    ),
    (
        "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking "
        "lot?",
        "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.",
    ),
    (
        "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in "
        "total?",
        "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After "
        "eating 35, they had 74 - 35 = 39. The answer is 39.",
    ),
    (
        "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many "
        "lollipops did Jason give to Denny?",
        "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny "
        "20 - 12 = 8. The answer is 8.",
    ),
    (
        "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does "
        "he have now?",
        "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. "
        "5 + 4 = 9. The answer is 9.",
    ),
    (
        "There were nine computers in the server room. Five more computers were installed each day, from "
        "monday to thursday. How many computers are now in the server room?",
        "There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 "
        "computers were added. 9 + 20 is 29. The answer is 29.",
    ),
    (
        "Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How "
        "many golf balls did he have at the end of wednesday?",
        "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing 2 "
        "more, he had 35 - 2 = 33 golf balls. The answer is 33.",
    ),
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 "
        "dollars left. 23 - 15 is 8. The answer is 8.",
    ),
)

PROMPTS = {
    prompt.name: prompt
    for prompt in (
        # T. Kojima et al., Large Language Models are Zero-Shot Reasoners, 2022 (arXiv 2205.11916).
        Prompt("zero-shot", after="\n\nLet's think step by step."),
        Prompt(
            "refined",
            before="Solve this problem step by step. Write every calculation out as an equation with its "
            "result, such as 12 * 3 = 36. Take care to answer what is asked. End with the line: The answer "
            "is N. Put the final number alone, without a unit, in place of N.\n\nProblem: ",
        ),
        Prompt("8-shot", shots=_WEI),
    )
}
