"""Answers in Chromium: what becomes Markdown and formulas, what stays text, and what a hostile one can do."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from thirteen.runtime.arithmetic.equations import read_equations

from ...background_server import background_server
from ...chromium import BROWSER_TEST
from ..page_server import Script, ScriptedServer
from .browsing import EGGS, ask_and_wait, text

pytestmark = BROWSER_TEST

DESCRIBE = """([text, steps]) => Promise.all([import('/answer_text.js'), import('/tree.js')]).then(
  ([{ describeAnswer }, { update }]) => {
    const box = document.createElement('div');
    update(box, describeAnswer(text, steps));
    return box.innerHTML;
  })"""
GROW = """(text) => Promise.all([import('/answer_text.js'), import('/tree.js')]).then(
  ([{ describeAnswer }, { update }]) => {
    const [box, whole] = [document.createElement('div'), document.createElement('div')];
    for (let end = 1; end <= text.length; end++) update(box, describeAnswer(text.slice(0, end), []));
    update(whole, describeAnswer(text, []));
    return [box.innerHTML, whole.innerHTML];
  })"""

MARKDOWN = [  # an answer's text, and its elements
    ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("**a** *b* ***c*** __d__ `e*f*`", "<p><strong>a</strong> <em>b</em> <em><strong>c</strong></em> "
     "<strong>d</strong> <code>e*f*</code></p>"),
    ("# One\n#### Four\n##### Five", "<h3>One</h3><h6>Four</h6><h6>Five</h6>"),
    ("Then:\n1. a\n2. b\n   - c\n   - d\n\n7) e", '<p>Then:</p><ol><li value="1"><p>a</p></li>'
     '<li value="2"><p>b</p><ul class="dash"><li><p>c</p></li><li><p>d</p></li></ul></li></ol>'
     '<ol><li value="7"><p>e</p></li></ol>'),
    ("```python\nx = 2 * 3  # *no*\n\ny\n```\nend",
     "<pre><code>x = 2 * 3  # *no*\n\ny</code></pre><p>end</p>"),
    ("```\nopen", "<pre><code>open</code></pre>"),
    ("a\n---\nb", "<p>a</p><hr><p>b</p>"),
    ("中文**粗体**中文", "<p>中文<strong>粗体</strong>中文</p>"),
    ("- `\\(x\\)`\n  a\n• b", '<ul class="dash"><li><p><code>\\(x\\)</code>\na</p></li></ul>'
     "<ul><li><p>b</p></li></ul>"),
    ("12\n* 3 = 36", "<p>12\n* 3 = 36</p>"),
]  # fmt: skip
SUMS = [  # texts in which Markdown would take signs of sums for its own
    "3*12=36 and 5*4=20, (3)*(4) and (5)*(6)",
    "2**3 = 8 and 3**2 = 9",
    "x_1 + x_2, 2 *(3 + 4)* 5, ____ apples",
    "* 3\n+ 4",
    r"\*no\* and \(open and $5 and $6",
    "**open and `open",
]

HOSTILE = (
    r"""<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">
<iframe src="https://example.com"></iframe> <svg onload="window.hacked = 1"></svg>
[link](javascript:window.hacked=1) ![image](https://example.com/x.png) <https://example.com> https://example.com
`<img src=x onerror="window.hacked = 1">` **<img src=x onerror="window.hacked = 1">**

# <script>window.hacked = 1</script>
- <a href="javascript:window.hacked=1">item</a>

```html
<script>window.hacked = 1</script>
```
\(\href{javascript:window.hacked=1}{x}\) \(\url{https://example.com}\)
\(\includegraphics[width=9em]{https://example.com/x.png}\)
\(\htmlStyle{position: fixed; inset: 0}{x}\) \(\htmlId{ask}{x}\) \(\htmlClass{badge ok}{verified}\)
\(\htmlData{x=1}{x}\) \(\text{<img src=x onerror="window.hacked = 1">}\) \(\color{red;position:fixed}{x}\)
\(\def\a{\a\a}\a\) \(\newcommand\b[1]{#1#1#1#1}\b{\b{\b{\b{\b{\b{\b{\b{x}}}}}}}}\)
\[\rule{9999em}{9999em}\] \(\kern-9999em x\) \(\raisebox{9999em}{y}\) \(\frac{1\) \(}\)
\["""
    + r"\sqrt{" * 300
    + "1"
    + "}" * 300
    + r"\]"
    + r"\["
    + r"\frac{" * 300
    + r"\] \("
    + "x" * 5000
    + r"\)"
)
FORBIDDEN = "a, img, script, iframe, svg[onload], form, input, [onerror], [href], [src], [id], .badge"
CHROME = "['title', 'header', '#ask', 'aside h2'].map((part) => document.querySelector(part).outerHTML)"


@pytest.fixture
def answered(visit: Callable[..., Page]) -> Any:
    """answered(text, …): a page on which these answers have been given; a model is named like markup."""
    script = Script({}, models=("smollm2", "<b>markup</b>"), delay_s=0)
    with background_server(ScriptedServer(script).app) as address:

        def answered(*answers: str) -> Page:
            page = visit(address)
            for number, answer in enumerate(answers):
                script.answers[str(number)] = answer
                ask_and_wait(page, str(number))
            return page

        yield answered


def test_a_mark_is_where_its_equation_stands(page: Page) -> None:
    """The first text with the same left side had the mark, whatever its value."""
    source = "\U0001f642 Anna wins 3 + 4 = 8 games.\r\nIn total she has 3 + 4 = 7.\n\n* **So 2 + 2 = 4**"
    html = page.evaluate(DESCRIBE, [source, [asdict(step) for step in read_equations(source).steps]])
    assert 'wins <span class="step wrong">3 + 4 = <del>8</del> <ins>7</ins>' in html
    assert 'has <span class="step ok">3 + 4 = 7<' in html and 'So <span class="step ok">2 + 2 = 4<' in html
    assert page.evaluate(DESCRIBE, ["3 + 4 = 7", [{"expression": "3 + 4", "ok": True}]]) == "<p>3 + 4 = 7</p>"


def test_markdown_becomes_elements(page: Page) -> None:
    for source, html in MARKDOWN:
        assert page.evaluate(DESCRIBE, [source, []]) == html


@pytest.mark.parametrize("source", SUMS)
def test_sums_are_no_markdown(page: Page, source: str) -> None:
    assert page.evaluate(DESCRIBE, [source, []]) == f"<p>{source}</p>"


def test_equations_are_marked_in_markdown_and_in_formulas(answered: Any) -> None:
    source = (
        "1. **2 * 3 = 6**\n2. So 6 * 2 = **13**\n3. `7 + 1 = 8`\n\n"
        r"So \(4 + 4 = 8\). Then \[5 + 5 = 11; 5 + 6 = 11\]"
    )
    page = answered(source)
    expect(text(page).locator("li strong .step.ok")).to_have_text("2 * 3 = 6")
    expect(text(page).locator("li del")).to_have_text("13")
    expect(text(page).locator("li code .step.ok")).to_have_text("7 + 1 = 8")
    expect(text(page).locator("p > .step.ok > .katex")).to_have_count(1)
    expect(text(page).locator("p > .step.wrong.display > .katex-display")).to_have_count(1)
    expect(text(page).locator(".step.wrong.display > ins")).to_have_text("10")
    expect(text(page).get_by_role("img", name="arithmetic right")).to_have_count(4)
    expect(text(page).get_by_role("img", name="wrong")).to_have_count(2)


def test_formulas_are_set_with_the_pages_own_fonts(answered: Any) -> None:
    source = (
        r"\(x^2\), \[\frac{1}{2}\] and $$\vec{v} + "
        r"\begin{pmatrix} 1 \\ 2 \\ 3 \\ 4 \\ 5 \end{pmatrix}$$ cost $5 and $6"
    )
    page = answered(source)
    expect(text(page).locator(".katex")).to_have_count(3)
    expect(text(page).locator(".katex-display")).to_have_count(2)
    expect(text(page).locator("math")).to_have_count(3)  # what a screen reader reads
    expect(text(page)).to_contain_text("cost $5 and $6")
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('16px KaTeX_Main'))")
    height = page.evaluate("document.querySelector('.katex-display .mfrac').getBoundingClientRect().height")
    assert height > 20  # without KaTeX's style sheet, a fraction is one line


def test_a_growing_answer_becomes_the_whole_one(page: Page) -> None:
    source = "\n\n".join([source for source, _ in MARKDOWN] + SUMS + [r"\(a * b\) *c* \[d\n- e\n\]"])
    grown, whole = page.evaluate(GROW, source)
    assert grown == whole


def test_a_hostile_answer_runs_and_changes_nothing(answered: Any) -> None:
    """Foreign requests and blocked code also fail the test, by the fixture `visit`."""
    page = answered("It is 3 + 4 = 7.")
    before = page.evaluate(CHROME)
    page = answered("It is 3 + 4 = 7.", HOSTILE)
    expect(text(page)).to_contain_text(
        '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
    )
    expect(text(page)).to_contain_text("[link](javascript:window.hacked=1)")
    expect(text(page).locator(FORBIDDEN)).to_have_count(0)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate(CHROME) == before
    assert page.evaluate("document.querySelectorAll('.answer *').length") < 5_000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.reload()
    expect(text(page)).to_contain_text("[link](javascript:window.hacked=1)")
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("moved", [r"\raisebox{4em}{\huge x}", r"\kern-12em \huge x"])
def test_a_formula_draws_nothing_outside_of_its_answer(answered: Any, moved: str) -> None:
    """It could imitate the badge of another answer."""
    page = answered("It is 3 + 4 = 7.", rf"\({moved}\)")
    outside = """() => {
      const box = [...document.querySelectorAll('.answer')].at(-1).getBoundingClientRect();
      const parts = [...document.querySelectorAll('.katex-html *')].flatMap((e) => [...e.getClientRects()]);
      const points = parts.map((r) => [r.x + r.width / 2, r.y + r.height / 2]);
      const inside = ([x, y]) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
      const away = points.filter((point) => !inside(point));
      const drawn = away.filter((point) => document.elementFromPoint(...point)?.closest('.katex'));
      return [away.length, drawn.length];
    }"""
    away, drawn = page.evaluate(outside)
    assert away > 0 and drawn == 0


def test_markup_cannot_be_made_from_strings(page: Page) -> None:
    """Trusted types: even a mistake in the page's own code could not make model output HTML."""
    attempt = "() => { try { document.body.innerHTML = '<p></p>'; } catch (error) { return error.name; } }"
    assert page.evaluate(attempt) == "TypeError"


def test_large_answers_are_described_quickly(page: Page) -> None:
    """Searches for what is not there could take the square of the length."""
    hostile = (
        *("\\[\n", "\\( ", "**a *b ", "- ", "```\n", "a\n\n", "- a\n\n"),
        *("`` ` ", "# ", "3 + ", "a*_", "  "),
    )
    timed = """(text) => import('/answer_text.js').then(({ describeAnswer }) => {
      const start = performance.now();
      describeAnswer(text, []);
      return performance.now() - start;
    })"""
    for piece in hostile:
        assert page.evaluate(timed, piece * (30_000 // len(piece))) < 3_000, piece


def test_a_plain_answer_needs_no_fonts(page: Page) -> None:
    """Visitors without formulas download no fonts."""
    fonts: list[str] = []
    page.on("request", lambda request: request.resource_type == "font" and fonts.append(request.url))
    ask_and_wait(page, EGGS)
    assert fonts == []
