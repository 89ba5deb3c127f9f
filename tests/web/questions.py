"""Questions and their scripted answers, and what a reader does on the page and sees there."""

from typing import Any

from .page_server import answer

EGGS = "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?"
VOTES = {"asked": 8, "ended": 5, "votes": {"7": 1, "31": 4}}
WIDE = f"{'9' * 120} {'w' * 120}\n\n```\n{'c' * 200}\n```\n\\[{'x + ' * 60}y\\] \\({'1' * 99}\\)"
ANSWERS = {
    EGGS: answer("The boxes hold 3 * 12 = 36 eggs. Left: 36 - 5 = 31."),
    "wrong": answer("So 12 * 13 = 146. Then 146 + 1 = 147.", unread=1),
    "vote": answer("36 - 5 = 31.", confidence=0.83, tally=VOTES),
    "tie": answer("I say 7.", value=None, sure=False, tally=VOTES | {"ended": 8, "votes": {"6": 4, "7": 4}}),
    "cut": answer("It is 3 + 4", sure=False, stop_reason="length", dropped_turns=1),
    "code": answer("```python\nx = 2 * 2\n```", value="4"),
    "think": answer("It is 7.", thinking="Is 2 + 2 = 5?\n\nNo."),
    "wide": answer(WIDE),
    "long": answer(" ".join(f"{n} + 1 = {n + 1}." for n in range(600))),
    "!hold": answer("It is 3 + 4 = 7. So the answer is 7."),
}


def ask(page: Any, question: str) -> None:
    page.get_by_label("Ask a math question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def ask_and_wait(page: Any, question: str) -> None:
    turns = page.locator(".turn").count()
    ask(page, question)
    page.locator(".turn").nth(turns).locator(".stats:not(:empty)").wait_for(timeout=120_000)


def part(page: Any, name: str) -> Any:
    """A part of the last turn: result, answer, checks, stats."""
    return page.locator(f".turn .{name}").last
