"""The page in a real Chromium; the server is scripted, except in the last test."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ...background_server import background_server
from ...chromium import BROWSER_TEST, LOW_CONTRAST
from ...waiting import wait_until
from .. import serving
from ..page_server import Script, ScriptedServer
from .browsing import ANSWERS, EGGS, ask, ask_and_wait, expect_ready, result, stats, text

pytestmark = BROWSER_TEST

TALLY = "(tally) => import('/answer.js').then((module) => module.tallyNote(tally))"
RESULT = """(answer) => import('/answer.js').then(({ resultNodes, resultSentence }) =>
  [resultNodes(answer).map((node) => node.textContent).join(" ").trim(), resultSentence(answer)])"""
BADGES = """(answer) => import('/answer.js').then(({ resultNodes }) => {
  const badges = resultNodes(answer).filter((node) => node.classList.contains("badge"));
  const green = badges.filter((node) => node.classList.contains("ok"));
  return [badges.map((node) => node.textContent), green.length];
})"""
STORE = "(found) => import('/conversations.js').then((module) => found.map(module.storeConversation))"


def turns(page: Page) -> list[str]:
    """The questions that are shown."""
    return page.locator(".question").all_inner_texts()


def conversation(*questions: str, answer: str = "It is 7.") -> dict[str, object]:
    """A conversation as the page stores it."""
    return {
        "id": questions[0],
        "turns": [{"question": question, "text": answer, "answer": None} for question in questions],
    }


def test_answer_streams_and_steps_are_marked(page: Page, script: Script) -> None:
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(result(page)).to_contain_text("2 equations checked: arithmetic right")
    expect(page.locator(".step.ok")).to_have_text(["3 * 12 = 36", "36 - 5 = 31"])
    assert text(page).inner_text() == ANSWERS[EGGS]
    expect(stats(page)).to_contain_text(
        "25 tokens (3 by the calculator) · 100.0 tokens/s · first token after 0.13 s · "
        "49 prompt tokens (12 cached) · smollm2"
    )
    expect(page.get_by_role("heading", name=EGGS)).to_be_visible()
    assert script.requests == [
        {"question": EGGS, "turns": [], "model": "smollm2", "effort": "low", "stream": True}
    ]


def test_steps_are_marked_before_the_answer_is_complete(page: Page, script: Script) -> None:
    """A page that shows everything only at the end would pass the test above."""
    ask(page, "!hold")
    expect(page.get_by_role("img", name="arithmetic right")).to_have_count(1)
    expect(text(page)).to_have_text("It is 3 + 4 = 7. So the answer is")
    expect(result(page)).to_contain_text("Working it out")
    script.release.set()
    expect(text(page)).to_have_text("It is 3 + 4 = 7. So the answer is 7.")
    expect(page.locator(".badge")).to_have_text("1 equation checked: arithmetic right")
    expect(result(page)).to_contain_text("some numbers are not in the question")


def test_screen_readers_announce_the_answer_once(page: Page, script: Script) -> None:
    """A live region must exist before it changes; with the streamed text in it, each word would be spoken."""
    status = page.locator("#announcement")
    expect(status).to_have_role("status")
    expect(status).to_be_empty()
    ask(page, "!hold")
    expect(status).to_have_text("Working it out")
    expect(page.locator(".step")).to_have_count(1)
    expect(status).to_have_text("Working it out")
    script.release.set()
    expect(status).to_have_text(
        "7, 1 equation checked: arithmetic right: some numbers are not in the question; likely right. "
        + ANSWERS["!hold"]
    )
    expect(page.locator(".turn [aria-live], .turn [role=status]")).to_have_count(0)


def test_earlier_turns_are_sent_and_each_answer_keeps_its_badge(page: Page, script: Script) -> None:
    for question in (EGGS, "wrong", "words"):
        ask_and_wait(page, question)
    assert turns(page) == [EGGS, "wrong", "words"]
    expect(page.get_by_role("img", name="wrong, the right value is 156")).to_be_attached()
    expect(page.locator(".step.wrong")).to_have_text("12 * 13 = 146 156")
    sent = [{"question": question, "answer": ANSWERS[question]} for question in (EGGS, "wrong")]
    assert [request["turns"] for request in script.requests] == [[], sent[:1], sent]
    expect(page.locator(".badge")).to_have_text(
        ["2 equations checked: arithmetic right", "1 of 2 equations wrong"]
    )
    expect(result(page)).to_be_empty()  # without sums, it need not be about numbers
    expect(page.locator(".turn").first.locator(".step.ok")).to_have_count(2)
    ask_and_wait(page, "!dropped")
    expect(stats(page)).to_contain_text("no room for the first turn")


def test_stop_disconnects_and_keeps_the_text(page: Page, script: Script) -> None:
    ask(page, "long")
    expect(page.get_by_role("img", name="arithmetic right").nth(3)).to_be_attached()
    page.get_by_role("button", name="Stop").click()
    expect(result(page)).to_have_text("Stopped")
    assert script.disconnected.wait(5)
    expect(text(page)).to_contain_text("3 + 1 = 4")
    expect(page.locator("#error")).to_be_empty()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    assert script.requests[-1]["turns"] == []  # a stopped answer is none
    page.reload()
    expect(text(page)).to_contain_text("36 - 5 = 31")
    expect(page.locator(".answer").first).to_contain_text("3 + 1 = 4")


def test_double_click_on_ask_does_not_stop(page: Page) -> None:
    """Stop replaces Ask, so the second click hits Stop."""
    page.get_by_label("Ask a math question").fill(EGGS)
    page.get_by_role("button", name="Ask", exact=True).dblclick()
    expect(result(page)).to_contain_text("31")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("!busy", "All slots are in use. (try again in 3 s)"),
        ("!fail", "The computation failed."),
        ("!break", "The connection was lost before the answer was complete."),
    ],
)
def test_failure_shows_a_message_and_the_question_can_be_asked_again(
    page: Page, question: str, message: str
) -> None:
    ask(page, question)
    expect(page.get_by_role("alert")).to_have_text(message)
    expect(result(page)).to_have_text("No answer")
    expect(page.get_by_label("Ask a math question")).to_have_value(question)
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.get_by_role("alert")).to_be_empty()
    assert turns(page) == [EGGS]


def test_api_key_is_requested_and_stored_for_the_tab(visit: Callable[..., Page]) -> None:
    with background_server(ScriptedServer(Script(ANSWERS, key="thirteen-26")).app) as address:
        page = visit(address)
        key = page.get_by_label("This server requires an API key")
        expect(key).to_be_focused()
        ask(page, EGGS)
        key.fill("guess")
        key.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Incorrect API key provided.")
        key.fill(" thirteen-26 ")
        page.get_by_role("button", name="Unlock").click()
        expect(result(page)).to_contain_text("31")
        expect(key).to_be_hidden()
        expect(page.get_by_role("alert")).to_be_empty()
        assert turns(page) == [EGGS]
        page.reload()
        expect_ready(page)
        assert page.evaluate("JSON.stringify(localStorage)").count("thirteen-26") == 0
        assert page.context.new_page().goto(address).ok
        expect(page.context.pages[-1].get_by_label("This server requires an API key")).to_be_visible()


def test_model_and_effort_selection(page: Page, script: Script) -> None:
    """JavaScript orders integer keys of an object by value, not by votes."""
    page.get_by_label("Model").select_option("gsm8k-13")
    effort, note = page.get_by_label("Effort"), page.locator("#effort-note")
    expect(note).to_be_hidden()
    effort.select_option("medium")
    expect(note).to_be_visible()
    expect(effort).to_have_accessible_description(re.compile("until enough answers agree"))
    ask(page, EGGS)
    expect(page.locator(".tally li")).to_have_text(["314 of 5", "71 of 5"])
    expect(page.locator(".turn")).to_contain_text(
        "5 answers; enough agree, so that no more of up to 8 were needed"
    )
    expect(result(page)).to_contain_text("likely right")
    assert script.requests == [
        {"question": EGGS, "turns": [], "model": "gsm8k-13", "effort": "medium", "stream": True}
    ]


def test_medium_is_chosen_where_the_server_finds_it_cheap(page: Page, script: Script) -> None:
    script.default_effort = "medium"
    page.reload()
    expect(page.get_by_label("Effort")).to_have_value("medium")
    script.default_effort = "low"


def test_progress_of_a_vote_is_shown(page: Page, script: Script) -> None:
    page.get_by_label("Effort").select_option("high")
    ask(page, "!hold")
    expect(result(page)).to_have_text("Working it out: 2 of 3 agree on 31")
    script.release.set()
    expect(result(page)).to_contain_text("likely right")


def test_a_thought_is_folded_above_the_answer_and_stored_with_it(page: Page) -> None:
    """It has no marks, and other answers have no fold."""
    ask_and_wait(page, "words")
    ask_and_wait(page, "!think")
    for _ in range(2):
        fold, thought = page.locator("details"), page.locator("details p")
        expect(fold.first).to_be_hidden()
        expect(fold.last).to_be_visible()
        expect(thought.last).to_be_hidden()
        page.get_by_text("Thoughts").last.click()
        expect(thought.last).to_be_visible()
        assert thought.last.text_content() == "Is 2 + 2 = 5?\n\nNo."
        expect(text(page)).to_have_text("It is 3 + 4 = 7 .")
        page.reload()


def test_votes_are_explained(page: Page) -> None:
    for tally, note in (
        (None, ""),
        ({"asked": 8, "ended": 8, "votes": {"7": 4, "8": 4}}, "8 answers"),
        (
            {"asked": 8, "ended": 3, "votes": {"7": 2}},
            "3 answers, 1 without a vote: no number, a wrong sum, or cut off; "
            "enough agree, so that no more of up to 8 were needed",
        ),
    ):
        assert page.evaluate(TALLY, tally) == note


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"confidence": 0.7}, "7 likely right"),
        ({"confidence": 0.5}, "7 may be right"),
        ({"confidence": 0.1}, "7 probably wrong"),
        ({"confidence": 0.1, "value": None, "sure": False}, "Not sure"),
        ({"confidence": None, "value": None, "sure": True}, ""),  # none was asked for
        ({"confidence": None, "value": None, "sure": False, "stop_reason": "length"}, "Cut off"),
        ({"confidence": None}, "7"),  # it is not calibrated for the model
        ({}, "7"),  # of an earlier version
    ],
)
def test_confidence_in_words(page: Page, fields: dict[str, object], shown: str) -> None:
    answer = {"value": "7", "steps": [], "grounded": False, "tally": None} | fields
    heard = shown.replace("7 ", "7: ")
    assert page.evaluate(RESULT, answer) == [shown, f"{heard}. " if shown else ""]


@pytest.mark.parametrize(
    ("votes", "ended", "green"), [({"6": 5, "7": 4}, 9, 0), ({"6": 6, "7": 3}, 9, 1), ({"6": 1}, 1, 0)]
)
def test_green_is_for_agreement(page: Page, votes: dict[str, int], ended: int, green: int) -> None:
    """A 6 with 5 of 9 votes was wrong, under a green badge for its right sums."""
    step = {"expression": "3 + 3", "claimed": "6", "computed": "6", "ok": True}
    tally = {"asked": 10, "ended": ended, "votes": votes}
    answer = {"value": "6", "steps": [step], "verified": True, "grounded": True, "tally": tally}
    assert page.evaluate(BADGES, answer) == [
        [f"{votes['6']} of {ended} agree on 6", "1 equation checked: arithmetic right"],
        green,
    ]


def test_examples_are_asked_at_a_click(page: Page, script: Script) -> None:
    examples = page.get_by_role("group", name="Example questions")
    expect(examples.get_by_role("button")).to_have_count(3)
    question = examples.get_by_role("button").nth(1).inner_text()
    examples.get_by_role("button").nth(1).click()
    expect(stats(page)).not_to_be_empty()
    assert [request["question"] for request in script.requests] == [question]
    expect(examples).to_be_hidden()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_focused()


def test_an_answer_is_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask_and_wait(page, "wrong")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#announcement")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == ANSWERS["wrong"]  # without marks
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()


def test_an_answer_is_copied_without_a_secure_context(
    visit: Callable[..., Page], server: tuple[str, Script]
) -> None:
    """The page of another machine, over HTTP."""
    page = visit(server[0], "Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    ask_and_wait(page, EGGS)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#announcement")).to_have_text("Copied")
    box = page.get_by_label("Ask a math question")
    box.focus()
    page.keyboard.press("Control+V")
    expect(box).to_have_value(ANSWERS[EGGS])


def test_an_answer_is_regenerated_by_sampling(page: Page, script: Script) -> None:
    """At temperature 0 it would be the same; what came after it goes, as after an edited question."""
    for question in ("words", EGGS, "wrong"):
        ask_and_wait(page, question)
    page.get_by_role("button", name="Regenerate").nth(1).click()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn .stats:not(:empty)")).to_have_count(2)
    again = script.requests[-1]
    assert (again["question"], again["temperature"]) == (EGGS, 0.7)
    assert [turn["question"] for turn in again["turns"]] == ["words"]
    assert turns(page) == ["words", EGGS]


def test_settings_are_sent_and_kept(page: Page, script: Script) -> None:
    gear, system = page.get_by_role("button", name="Settings"), page.get_by_label("System prompt")
    gear.click()
    system.fill(" Answer in French. ")
    page.get_by_label("Temperature").fill("0.25")
    page.keyboard.press("Enter")
    expect(system).to_be_hidden()
    page.reload()
    expect_ready(page)
    ask_and_wait(page, EGGS)
    sent = {key: script.requests[-1][key] for key in ("system", "temperature")}
    assert sent == {"system": "Answer in French.", "temperature": 0.25}
    gear.click()
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Done").click()
    assert page.evaluate("localStorage.getItem('thirteen.settings')") is None
    ask_and_wait(page, "words")
    assert not {"system", "temperature"} & set(script.requests[-1])


def test_code_has_no_number_as_its_result(page: Page) -> None:
    ask_and_wait(page, "code")
    expect(result(page)).to_be_empty()
    expect(text(page).locator("pre")).to_contain_text("return n * 2")
    expect(page.locator("#announcement")).to_contain_text("Code. Here it is")


@pytest.mark.parametrize("width", [320, 1440])
def test_page_fits_the_screen_and_is_centred(
    visit: Callable[..., Page], server: tuple[str, Script], width: int
) -> None:
    page = visit(server[0], viewport={"width": width, "height": 640})

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("main").bounding_box()
        assert box and abs(box["x"] + box["width"] / 2 - width / 2) <= 8  # half of a scroll bar

    check()
    for question in (EGGS, "wide"):
        ask_and_wait(page, question)
        check()
    page.get_by_label("Effort").select_option("medium")
    ask(page, "wide")
    expect(page.locator(".turn").last.locator(".tally li")).to_have_count(2)
    check()
    if width < 1000:
        page.get_by_role("button", name="History").click()
        check()
    expect(page.locator("#conversations")).to_be_visible()


def is_dark(page: Page) -> bool:
    return int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")) < 64


def test_a_long_name_of_a_model_leaves_ask_and_stop_in_the_line(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    """At 1,280 pixels it pushed them out, into a line of their own."""
    name = "a-model-with-a-rather-long-name-Q4_K_M-49152-tokens"
    script = Script(ANSWERS, models=(name, "other"))
    with background_server(ScriptedServer(script).app) as address:
        page = visit(address)
        expect(page.get_by_label("Model")).to_have_value(name)
        for width in (1280, 800, 600):
            page.set_viewport_size({"width": width, "height": 800})
            script.release.clear()
            ask(page, "!hold")
            _expect_in_line(page, "Stop")
            page.screenshot(path=tmp_path / f"stop-{width}.png")
            script.release.set()
            _expect_in_line(page, "Ask")
            page.screenshot(path=tmp_path / f"ask-{width}.png")


def _expect_in_line(page: Page, name: str) -> None:
    """The button is right of the model, in its line and within the form: measured at once, as they move."""
    button = page.get_by_role("button", name=name, exact=True)
    expect(button).to_be_visible()
    elements = [one.element_handle() for one in (page.get_by_label("Model"), button, page.locator("#ask"))]
    measure = "elements => elements.map(element => element.getBoundingClientRect().toJSON())"
    model, button_box, form = page.evaluate(measure, elements)
    assert button_box["top"] < model["bottom"] and model["top"] < button_box["bottom"]
    assert model["right"] <= button_box["left"] and button_box["right"] <= form["right"]


def test_an_error_is_not_hidden_behind_the_question_form(page: Page, tmp_path: Path) -> None:
    """After "The server cannot be reached" it was below the form."""
    for _ in range(3):
        ask_and_wait(page, EGGS)
    page.route("**/v1/answer", lambda route: route.abort())
    for _ in range(2):
        ask(page, "One more?")
        error = page.get_by_role("alert")
        expect(error).to_have_text("The server cannot be reached.")
        page.wait_for_timeout(200)
        page.screenshot(path=tmp_path / "error.png")
        on_top = """(found) => { const box = found.getBoundingClientRect();
          const at = [box.left + box.width / 2, box.top + box.height / 2];
          return box.top >= 0 && box.bottom <= innerHeight && document.elementFromPoint(...at) === found; }"""
        assert error.evaluate(on_top)
        expect(page.get_by_role("heading", name="One more?").last).to_be_in_viewport()
        page.get_by_label("Ask a math question").fill("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_mode_has_a_switch(visit: Callable[..., Page], server: tuple[str, Script], scheme: str) -> None:
    """The choice outlives the visit; the system's own colours are no choice, and follow the system again."""
    page = visit(server[0], color_scheme=scheme)
    switch, other = page.get_by_role("button", name="Dark mode"), "light" if scheme == "dark" else "dark"
    assert is_dark(page) == (scheme == "dark")
    switch.click()
    page.reload()
    assert is_dark(page) == (other == "dark")
    expect(switch).to_have_attribute("aria-pressed", str(other == "dark").lower())
    assert page.evaluate(LOW_CONTRAST) == []
    switch.click()
    page.emulate_media(color_scheme=other)
    assert is_dark(page) == (other == "dark")
    expect(switch).to_have_attribute("aria-pressed", str(other == "dark").lower())


def test_enter_sends_and_shift_enter_begins_a_line(page: Page, script: Script) -> None:
    expect(page.get_by_label("Ask a math question")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("wor")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("ds")
    page.keyboard.press("Enter")
    expect(stats(page)).not_to_be_empty()
    assert [request["question"] for request in script.requests] == ["wor\nds"]
    expect(page.get_by_label("Ask a math question")).to_be_focused()
    expect(page.get_by_label("Ask a math question")).to_have_value("")


def test_a_question_is_edited_and_asked_anew(page: Page, script: Script) -> None:
    for question in ("words", "wrong", EGGS):
        ask_and_wait(page, question)
    page.get_by_role("button", name="Edit").nth(1).click()
    box = page.get_by_label("Ask a math question")
    expect(box).to_have_value("wrong")
    expect(box).to_be_focused()
    expect(page.locator(".turn.edited")).to_have_count(2)
    page.keyboard.press("Escape")
    expect(page.locator(".turn.edited")).to_have_count(0)
    expect(box).to_have_value("")
    page.keyboard.press("ArrowUp")
    expect(box).to_have_value(EGGS)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".turn.edited")).to_have_count(0)
    expect(box).to_have_value("")
    page.get_by_role("button", name="Edit").nth(1).click()
    ask(page, "!bytes")
    expect(result(page)).to_contain_text("arithmetic right")
    assert turns(page) == ["words", "!bytes"]
    assert [turn["question"] for turn in script.requests[-1]["turns"]] == ["words"]


def test_a_replacement_without_an_answer_leaves_the_turns(page: Page) -> None:
    """They were deleted as soon as a question was asked again, though the server could not be reached."""
    for question in (EGGS, "words"):
        ask_and_wait(page, question)
    page.get_by_role("button", name="Edit").first.click()
    ask(page, "!busy")
    expect(page.get_by_role("alert")).to_contain_text("All slots are in use.")
    box = page.get_by_label("Ask a math question")
    expect(box).to_have_value("!busy")
    expect(page.locator(".turn.edited")).to_have_count(2)
    page.keyboard.press("Escape")
    page.route("**/v1/answer", lambda route: route.abort())
    page.get_by_role("button", name="Regenerate").first.click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    expect(box).to_have_value(EGGS)
    page.unroute("**/v1/answer")
    page.route("**/v1/answer", lambda route: None)  # never answered
    page.get_by_role("button", name="Regenerate").first.click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    page.get_by_role("button", name="Edit").first.click()
    ask(page, "another")
    page.get_by_role("button", name="Stop").click()
    expect(box).to_have_value("another")
    expect(page.locator(".turn.edited")).to_have_count(2)
    page.reload()
    assert turns(page) == [EGGS, "words"]
    assert text(page).inner_text() == ANSWERS["words"]


def test_escape_closes_the_settings_and_keeps_an_edited_question(page: Page) -> None:
    ask_and_wait(page, EGGS)
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("button", name="Settings").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Settings")).to_be_hidden()
    expect(page.get_by_label("Ask a math question")).to_have_value(EGGS)
    page.keyboard.press("Escape")
    expect(page.get_by_label("Ask a math question")).to_have_value("")


def test_a_conversation_opens_as_it_is_stored(page: Page, script: Script) -> None:
    """The text that was coming, and the turns of another tab, were lost."""
    ask(page, "!hold")
    expect(page.locator(".step")).to_have_count(1)
    page.locator("#conversations button").click()
    expect(text(page)).to_contain_text("It is 3 + 4 = 7")
    script.release.set()
    other = page.context.new_page()
    other.goto(page.url)
    other.locator("#conversations button").click()
    ask_and_wait(other, EGGS)
    expect(page.locator(".result")).to_have_count(2)
    assert turns(page) == ["!hold", EGGS]


def test_text_from_right_to_left_is_aligned_so(page: Page) -> None:
    ask_and_wait(page, "arabic")
    gap = """(found) => { const range = document.createRange(); range.selectNodeContents(found);
        return found.getBoundingClientRect().right - range.getBoundingClientRect().right }"""
    assert text(page).locator("p").evaluate(gap) < 2


def test_conversations_are_stored_resumed_and_cleared(page: Page, script: Script) -> None:
    ask_and_wait(page, EGGS)
    ask_and_wait(page, "wrong")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    ask_and_wait(page, "words")
    assert script.requests[-1]["turns"] == []
    page.reload()
    expect(page.locator("#conversations li")).to_have_text(["words", EGGS])
    expect(page.locator("#conversations [aria-current]")).to_have_text("words")
    assert turns(page) == ["words"]
    page.locator("#conversations button").nth(1).click()
    assert turns(page) == [EGGS, "wrong"]
    expect(page.locator(".badge")).to_have_text(
        ["2 equations checked: arithmetic right", "1 of 2 equations wrong"]
    )
    expect(page.locator(".step.wrong del")).to_have_text("146")
    ask_and_wait(page, "words")
    assert [turn["question"] for turn in script.requests[-1]["turns"]] == [EGGS, "wrong"]
    expect(page.locator("#conversations li")).to_have_text([EGGS, "words"])
    page.get_by_role("button", name="Clear conversations").click()
    expect(page.locator("#history")).to_be_hidden()
    assert turns(page) == []
    page.reload()
    expect(page.locator("#history")).to_be_hidden()


def test_the_storage_is_bounded(page: Page) -> None:
    page.evaluate(STORE, [conversation(str(number)) for number in range(30)])
    stored = page.evaluate("JSON.parse(localStorage['thirteen.conversations'])")
    assert [found["id"] for found in stored] == [str(number) for number in range(29, 9, -1)]
    page.evaluate(STORE, [conversation("a", "b", "c", answer="x" * 400_000)])
    (stored,) = page.evaluate("JSON.parse(localStorage['thirteen.conversations'])")
    assert [turn["question"] for turn in stored["turns"]] == ["b", "c"]


@pytest.mark.parametrize(
    "stored",
    ["{", "7", "[null, 3]", '[{"id": 1, "turns": []}]', '[{"id": "a", "turns": [{"question": "b"}]}]'],
)
def test_storage_of_another_version_is_harmless(page: Page, stored: str) -> None:
    page.evaluate("(stored) => localStorage.setItem('thirteen.conversations', stored)", stored)
    page.reload()
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.locator("#conversations li")).to_have_text([EGGS])


def test_the_page_works_without_storage(visit: Callable[..., Page], server: tuple[str, Script]) -> None:
    page = visit(
        server[0], "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no') } })"
    )
    page.get_by_role("button", name="Dark mode").click()
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")


def test_a_growing_answer_stays_in_view_until_the_reader_scrolls(
    visit: Callable[..., Page], server: tuple[str, Script], script: Script
) -> None:
    page = visit(server[0], viewport={"width": 600, "height": 500})
    ask_and_wait(page, EGGS)
    ask(page, "long")
    expect(page.locator(".turn").last.locator(".step").nth(30)).to_be_attached()
    box = page.locator(".turn").last.bounding_box()
    assert box and 0 <= box["y"] <= 100
    page.mouse.wheel(0, -400)
    wait_until(lambda: page.evaluate("scrollY") < 100, 5)
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") < 100
    page.keyboard.press("Escape")


def test_page_works_with_the_real_server(visit: Callable[..., Page], smollm2: Path) -> None:
    """The scripted server could deviate from the real protocol."""
    question = "Repeat exactly: 1234 * 5678 ="
    with serving.open_engine(smollm2) as engine, serving.serve_engine(engine, name="smollm2") as real:
        page = visit(real.url)
        expect_ready(page)
        ask(page, question)
        expect(stats(page)).to_contain_text("tokens/s", timeout=60_000)  # a real answer
        answer = engine.answer(question)
        assert answer.steps
        expect(page.locator(".step.ok")).to_have_count(len(answer.steps))
        expect(page.locator(".result strong")).to_have_count(0 if answer.value is None else 1)
        ask(page, "Write a long story about the number thirteen.")
        expect(text(page)).to_contain_text("a")
        page.keyboard.press("Escape")
        expect(result(page)).to_have_text("Stopped")
        wait_until(lambda: engine.load.running == 0, 5)
