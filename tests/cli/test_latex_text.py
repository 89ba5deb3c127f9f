"""Text on a terminal: LaTeX, and lines that break between words."""
# ruff: noqa: RUF001 - signs of mathematics

import sys

from thirteen.cli.answer_text import WordWrap, latex_text


def test_what_is_known_becomes_text_and_the_rest_stays():
    for latex, text in (
        (r"So \(\frac{12 + 3}{4} \times 3 = 9\).", "So (12 + 3)/4 × 3 = 9."),
        (r"\[\boxed{\frac{3}{4}}\]", "3/4"),
        (r"$$x^{2} = 50\%$$", "x^2 = 50%"),
        (r"It costs $5 and $7, or \$9.", "It costs $5 and $7, or $9."),
        (r"\text{Total} = \sqrt{16} \leq 5^\circ", "Total = √16 ≤ 5°"),
        (r"\frac{\frac{1}{2}}{3}", "(1/2)/3"),
        (r"C:\temp, print('a\n')", r"C:\temp, print('a\n')"),
    ):
        assert latex_text(latex) == text


def test_pieces_are_held_back_from_latex_to_the_end_of_the_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    wrap = WordWrap()
    pieces = ["She pays $5 ", "for \\(\\fr", "ac{1}{2}\\) of ", "it.\n```\n", "\\frac{1}{2}\n```\n$", "\\pi$"]
    for piece in pieces:
        wrap.write(piece)
    assert capsys.readouterr().out.endswith("\\frac{1}{2}\n```\n")
    wrap.flush()
    assert capsys.readouterr().out == "π"


def test_lines_break_between_words(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    wrap = WordWrap()
    for piece in ("one tw", "o three", " four\n", "x" * 30, " y"):
        wrap.write(piece)
    wrap.flush()
    assert capsys.readouterr().out == f"one two \nthree four\n{'x' * 30} \ny"
