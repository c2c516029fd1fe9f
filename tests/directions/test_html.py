"""Directions in a notebook: escaped, without anything from elsewhere, for any background."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest


class Reader(HTMLParser):
    """Tags and text of a page; fails on what is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


@pytest.fixture
def direction(make_direction: Any) -> Any:
    return make_direction(layer=2)


def test_a_direction_shows_its_scale_site_and_origin(direction: Any) -> None:
    read = Reader(direction._repr_html_())
    assert set(read.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    for said in ("random-0", "layer 2", "random_isotropic", "prompt_in_H", "32"):
        assert said in read.cells


def test_a_set_shows_one_line_per_direction(direction: Any) -> None:
    from persona_probe.directions.direction_set import Directions

    several = Directions({"a": {direction.site: direction}, "b": {direction.site: direction}})
    read = Reader(several._repr_html_())
    assert read.tags.count("tr") == 3
    assert "0.75" in read.cells
    assert Reader(Directions()._repr_html_()).tags.count("tr") == 1


def test_names_are_escaped_and_nothing_is_fetched(direction: Any) -> None:
    from persona_probe.directions.direction_set import Directions

    evil = replace(direction, persona='<script src="http://x">"', norm=float("nan"))
    for page in (evil._repr_html_(), Directions({evil.persona: {evil.site: evil}})._repr_html_()):
        read = Reader(page)
        assert evil.persona in read.cells
        assert "–" in read.cells
        assert not re.search(
            r"(src|href|url|@import)\s*[=(:]", re.sub(r"&\w+;|src=&quot;", "", page)
        )


def test_colours_are_the_pages_own(direction: Any) -> None:
    page = direction._repr_html_()
    colours = set(re.findall(r"(?:color|background):([^;\"]+)", page))
    assert colours == {"inherit", "transparent"}
