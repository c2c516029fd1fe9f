"""What a browser would see in a page, as far as the standard library can tell."""

import re
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Elements, attributes and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data + " "

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def words(self) -> str:
        """The text on one line, without the marks that say where a word may break."""
        return re.sub(r"\s+", " ", self.text.replace("\u200b", ""))

    def section(self, html: str, name: str) -> "Page":
        """The page that holds one section only."""
        start = html.index(f'id="{name}"')
        return Page("<section " + html[start : html.index("</section>", start)])
