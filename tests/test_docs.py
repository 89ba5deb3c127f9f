"""The documents hold: links lead somewhere, modules exist, and command lines parse."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from thirteen.cli.main import ClickError, app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "deploy" / "README.md",
]
PACKAGES = (
    *("bench", "cli", "convert", "files", "learn", "models", "runtime", "server", "stats", "web"),
    *("tests", "lab", "deploy", "examples"),
)
PLACEHOLDERS = {"…": "x", "FILE.jsonl": "f.jsonl", "DIR": "d", "N": "1"}


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_and_paths_that_are_named_exist(document):
    text = re.sub(r"https?://\S+", "", document.read_text("utf-8"))
    names = "|".join(PACKAGES)
    for path in re.findall(rf"(?<![\w/.-])(?:{names})/[\w./*-]*[\w*]/?", text):
        assert any(ROOT.glob(path.replace("NAME", "*"))), path
    for module in re.findall(rf"\bthirteen\.((?:{names})(?:\.\w+)*)\b", text):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), module


def test_scripts_and_targets_of_make_that_are_named_exist():
    scripts = re.findall(r"^\| `(\w+\.py)\b", (ROOT / "docs/benchmarks.md").read_text("utf-8"), re.MULTILINE)
    assert len(scripts) > 10 and all((ROOT / "lab" / name).exists() for name in scripts)
    named = {
        name for path in DOCUMENTS for name in re.findall(r"`make ([a-z][\w-]*)", path.read_text("utf-8"))
    }
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert targets and named <= set(targets[1].split())


def command_lines() -> Iterator[tuple[str, str, bool]]:
    """Document, command line, and whether it stands in a code block, and so is complete."""
    for document in DOCUMENTS:
        text = document.read_text("utf-8").replace("\\\n", " ")
        blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL))
        inline = "\n".join(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
        for lines, complete in ((blocks, True), (inline, False)):
            for line in lines.splitlines():
                if found := re.match(r"(?:\$ |time )?(thirteen [a-z].*)", line.strip()):
                    yield document.name, found[1], complete and "…" not in line


def parse_command(words: list[str]) -> dict[str, Any]:
    """The parameters of a command from the words after `thirteen`; nothing is run."""
    command = typer.main.get_command(app)
    context = command.make_context("thirteen", words)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return dict(context.params)


@pytest.mark.parametrize(("document", "line", "complete"), sorted(set(command_lines())))
def test_a_command_line_parses(document, line, complete):
    """Its command and options exist, and their values have the right form."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line, comments=True)[1:]]
    try:
        parse_command(words)
    except typer.Exit:
        pass  # --help, or a group alone
    except ClickError as error:
        # A sentence may name a command without its arguments, or an option without its value.
        partial = re.match("Missing|Usage:|.*requires an argument", error.format_message())
        assert partial and not complete, error.format_message()
