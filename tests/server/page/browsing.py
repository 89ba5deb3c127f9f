"""What a reader does on the page and sees there, and the scripted answers."""

from playwright.sync_api import Locator, Page, expect

expect.set_options(timeout=30_000)

EGGS = "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?"
WIDE = "9" * 90 + " is a number and " + "w" * 120 + " a word. 1234567890123456789 + 1 = 1234567890123456790 ."
ANSWERS = {
    EGGS: "The boxes hold 3 * 12 = 36 eggs. 5 break, so 36 - 5 = 31 eggs left. The answer is 31.",
    "wrong": "We need 12 * 13 = 146. Then 146 + 1 = 147. The answer is 147.",
    "!hold": "It is 3 + 4 = 7. So the answer is 7.",
    "!dropped": "It is 1 + 1 = 2 .",
    "code": "Here it is:\n\n```python\ndef double(n):\n    return n * 2  # 2 * 2 = 4\n```",
    "words": "I would rather not say.",
    "wide": WIDE + "\n\n```\n" + "c" * 200 + "\n```\n\\[" + "x + " * 60 + "y\\] \\(" + "1" * 99 + "\\)",
    "long": " ".join(f"{n} + 1 = {n + 1}." for n in range(1_000)),
    "!bytes": "Half a loaf — ½ — is 1/2. So 2 + 2 = 4. …",
    "arabic": "الجواب هو سبعة.",
}


def expect_ready(page: Page) -> None:
    """The page has asked the server for its models."""
    expect(page.get_by_label("Model")).to_have_value("smollm2")


def ask(page: Page, question: str) -> None:
    page.get_by_label("Ask a math question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def ask_and_wait(page: Page, question: str) -> None:
    ask(page, question)
    expect(stats(page)).not_to_be_empty()


def result(page: Page) -> Locator:
    """Value, badge and reason of the last turn."""
    return page.locator(".result").last


def text(page: Page) -> Locator:
    """The answer's text of the last turn."""
    return page.locator(".answer").last


def stats(page: Page) -> Locator:
    """Token counts and rates of the last turn."""
    return page.locator(".stats").last
