"""Answers in Chromium: what becomes Markdown, formulas and marks, and what a hostile one can do."""

import pytest

from ..chromium import BROWSER_TEST
from .page_server import answer
from .questions import ask_and_wait, part

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = BROWSER_TEST
expect = playwright.expect

SHOW = """([text, steps]) => import('/page/answer_text.js').then(({ showText }) => {
  const box = document.createElement('div');
  showText(box, text, steps);
  return box.innerHTML;
})"""
GROW = """(text) => import('/page/answer_text.js').then(({ showText }) => {
  const [box, whole] = [document.createElement('div'), document.createElement('div')];
  for (let end = 1; end <= text.length; end++) showText(box, text.slice(0, end), []);
  showText(whole, text, []);
  return [box.innerHTML, whole.innerHTML];
})"""

MARKDOWN = [  # an answer's text, and its elements
    ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("**a** *b* ***c*** __d__ `e*f*`", "<p><strong>a</strong> <em>b</em> <em><strong>c</strong></em> "
     "<strong>d</strong> <code>e*f*</code></p>"),
    ("# One\n#### Four\n##### Five", "<h3>One</h3><h6>Four</h6><h6>Five</h6>"),
    ("Then:\n1. a\n2. b\n   - c\n   - d\n\n7) e", "<p>Then:</p><ol><li><p>a</p></li>"
     "<li><p>b</p><ul><li><p>c</p></li><li><p>d</p></li></ul></li></ol>"
     '<ol start="7"><li><p>e</p></li></ol>'),
    ("```python\nx = 2 * 3  # *no*\n\ny\n```\nend",
     "<pre><code>x = 2 * 3  # *no*\n\ny</code></pre><p>end</p>"),
    ("```\nopen \\(x\\)", "<pre><code>open \\(x\\)</code></pre>"),
    ("a\n---\nb", "<p>a</p><hr><p>b</p>"),
    ("中文**粗体**中文", "<p>中文<strong>粗体</strong>中文</p>"),
    ("- `\\(x\\)`\n  a", "<ul><li><p><code>\\(x\\)</code>\na</p></li></ul>"),
    (r"\*no\* and 3 \* 4", "<p>*no* and 3 * 4</p>"),
]  # fmt: skip
SUMS = [  # texts in which Markdown would take signs of sums for its own
    "3*12=36 and 5*4=20, (3)*(4) and (5)*(6)",
    "2**3 = 8 and 3**2 = 9",
    "x_1 + x_2, 2 *(3 + 4)* 5, ____ apples",
    "12\n* 3\n+ 4",
    "**open and `open for $5 and $6",
]

HOSTILE = r"""<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">
<iframe src="https://example.com"></iframe> <svg onload="window.hacked = 1"></svg>
[link](javascript:window.hacked=1) ![image](https://example.com/x.png) <https://example.com> https://example.com
`<img src=x onerror="window.hacked = 1">` **<img src=x onerror="window.hacked = 1">**

# <script>window.hacked = 1</script>
- <a href="javascript:window.hacked=1">item</a>

```html
<script>window.hacked = 1</script>
```
\(\href{javascript:window.hacked=1}{x}\) \(\url{https://example.com}\) \(\includegraphics[width=9em]{/x.png}\)
\(\htmlStyle{position: fixed; inset: 0}{x}\) \(\htmlId{ask}{x}\) \(\htmlClass{step ok}{verified}\)
\(\htmlData{style=position:fixed}{x}\) \(\text{<img src=x onerror="window.hacked = 1">}\) \(\frac{1\) \(}\)
\(\color{red;position:fixed}{x}\) \(\def\a{\a\a}\a\) \[\rule{9999em}{9999em}\] \(\kern-9999em x\)
"""
HOSTILE += (
    "\\[" + r"\sqrt{" * 300 + "1" + "}" * 300 + r"\] \[" + r"\frac{" * 300 + r"\] \(" + "x" * 5000 + r"\) "
)
HOSTILE += "\U000f0000 \U00100000 \U00100002"  # of the characters that stand for formulas and marks
FORBIDDEN = "a, img, script, iframe, svg[onload], form, input, [onerror], [href], [src], [id], .step"


def test_markdown_becomes_elements_and_sums_do_not(page):
    for source, html in MARKDOWN + [(source, f"<p>{source}</p>") for source in SUMS]:
        assert page.evaluate(SHOW, [source, []]) == html


def test_a_mark_is_where_its_equation_stands(page):
    """The first text with the same left side had the mark, whatever its value."""
    source = "\U0001f642 Anna wins 3 + 4 = 8 games.\r\nIn total she has 3 + 4 = 7.\n\n* **So** 2 **+ 2 = 4**"
    html = page.evaluate(SHOW, [source, answer(source)["steps"]])
    title = 'title="This sum is'
    assert f'wins <span class="step wrong" {title} wrong: 7">3 + 4 = <del>8</del> <ins>7</ins><span ' in html
    assert f'has <span class="step ok" {title} right">3 + 4 = 7<span role="img"' in html
    assert f'<span class="step ok" {title} right">2 </span><strong><span class="step ok"' in html


def test_equations_are_marked_in_lists_code_and_formulas(page, server):
    source = "1. **2 * 3 = 6**\n2. So 6 * 2 = **13**\n3. `7 + 1 = 8`\n\nSo \\(4 + 4 = 8\\). Then "
    source += "\\[5 + 5 = 11.\n5 + 6 = 11\\]\n\n\\(1 + 1\\) = 2"
    server.answers["marks"] = answer(source)
    ask_and_wait(page, "marks")
    text = part(page, "answer")
    expect(text.locator("li strong .step.ok")).to_have_text("2 * 3 = 6")
    expect(text.locator("li del")).to_have_text("13")
    expect(text.locator("li code .step.ok")).to_have_text("7 + 1 = 8")
    expect(text.locator("p > .step.ok > .katex")).to_have_count(2)
    expect(text.locator("p > .step.wrong.display > .katex-display")).to_have_count(1)
    expect(text.locator(".step.wrong.display > ins")).to_have_text("10")
    expect(text.get_by_role("img", name="this sum is right")).to_have_count(5)
    expect(text.get_by_role("img", name="this sum is wrong: 1")).to_have_count(2)


def test_formulas_are_set_with_the_pages_own_fonts(page, server):
    server.answers["formulas"] = answer(r"\(x^2\), \[\frac{1}{2}\] and $$\vec{v} + 1$$")
    ask_and_wait(page, "formulas")
    for found, count in ((".katex", 3), (".katex-display", 2), ("math", 3)):  # a screen reader reads the last
        expect(part(page, "answer").locator(found)).to_have_count(count)
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('16px KaTeX_Main'))")
    size = "(part) => document.querySelector(part).getBoundingClientRect().toJSON()"
    assert page.evaluate(size, ".katex-display .mfrac")["height"] > 20, "it has no style sheet"
    assert page.evaluate(size, ".answer svg")["width"] > 5, "the arrow had no width"


def test_a_growing_answer_becomes_the_whole_one(page):
    source = "\n\n".join([source for source, _ in MARKDOWN] + SUMS + [r"\(a * b\) *c* \[d\n- e\n\]"])
    grown, whole = page.evaluate(GROW, source)
    assert grown == whole


def test_a_hostile_answer_runs_and_changes_nothing(page, server):
    """Foreign requests and blocked code also fail the test, by the fixture `visit`."""
    server.answers["hostile"] = answer(HOSTILE)
    ask_and_wait(page, "hostile")
    for _ in range(2):
        text = part(page, "answer")
        expect(text).to_contain_text("<script>window.hacked = 1</script><img src=x onerror=")
        expect(text).to_contain_text("[link](javascript:window.hacked=1)")
        expect(text.locator(FORBIDDEN)).to_have_count(0)
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.querySelectorAll('.answer *').length") < 5_000
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.reload()


@pytest.mark.parametrize("moved", [r"\raisebox{4em}{\huge x}", r"\kern-12em \huge x"])
def test_a_formula_draws_nothing_outside_of_its_answer(page, server, moved):
    """It could imitate the value of another answer."""
    server.answers["moved"] = answer(rf"\({moved}\)")
    ask_and_wait(page, "moved")
    outside = """() => {
      const box = document.querySelector('.answer').getBoundingClientRect();
      const parts = [...document.querySelectorAll('.katex-html *')].flatMap((e) => [...e.getClientRects()]);
      const points = parts.map((r) => [r.x + r.width / 2, r.y + r.height / 2]);
      const away = points.filter(([x, y]) => x < box.left || x > box.right || y < box.top || y > box.bottom);
      return [away.length, away.filter((at) => document.elementFromPoint(...at)?.closest('.katex')).length];
    }"""
    away, drawn = page.evaluate(outside)
    assert away > 0 and drawn == 0


def test_markup_cannot_be_made_from_strings(page):
    """Trusted types: even a mistake in the page's own code could not make model output HTML."""
    attempt = "() => { try { document.body.innerHTML = '<p></p>'; } catch (error) { return error.name; } }"
    assert page.evaluate(attempt) == "TypeError"


def test_large_answers_are_shown_quickly(page):
    """Searches for what is not there could take the square of the length."""
    timed = """(text) => import('/page/answer_text.js').then(({ showText }) => {
      const start = performance.now();
      showText(document.createElement('div'), text, []);
      return performance.now() - start;
    })"""
    blocks = ("\\[\n", "- ", "```\n", "a\n\n", "- a\n\n", "# ")
    for piece in (*blocks, "\\( ", "**a *b ", "`` ` ", "3 + ", "a*_", "  "):
        assert page.evaluate(timed, piece * (30_000 // len(piece))) < 3_000, piece
