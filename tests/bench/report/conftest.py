"""A parser of rendered pages."""

from html.parser import HTMLParser

VOID_TAGS = {"meta"}


class Page(HTMLParser):
    """Tags and text of a page, with a check that tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._separate(tag)
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def _separate(self, tag: str) -> None:
        if tag != "abbr":  # which stands within a line
            self.texts.append(" ")

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())
