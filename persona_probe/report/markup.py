"""HTML that cannot be broken by what it shows: text is escaped unless it was built here."""

from collections.abc import Iterable
from html import escape
from typing import Any

VOID = frozenset({"br", "hr", "img", "meta", "path", "circle", "line", "rect"})

# Iterables may nest; a type that says so by naming itself cannot be checked at run time.
Child = str | int | float | None | Iterable[Any]


class Markup(str):
    """HTML that `element` made; any other string is text and is escaped where it is used."""

    __slots__ = ()


def element(
    name: str, /, *children: Child, **attributes: str | int | float | bool | None
) -> Markup:
    """Build one element.

    Args:
        name: tag.
        children: nested elements, texts (escaped), iterables of both; `None` is left out.
        attributes: `class_` becomes class and `data_x` data-x; `None` and `False` leave the
            attribute out, `True` writes it without a value.

    Example:
        >>> element("p", "1 < 2", class_="note")
        '<p class="note">1 &lt; 2</p>'
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{opening}/>")  # the slash matters inside <svg>
    return Markup(f"<{opening}>{join(children)}</{name}>")


def join(children: Child, separator: str = "") -> Markup:
    """Concatenate, escaping every text that is not `Markup`."""
    return Markup(separator.join(_texts(children)))


def paragraph(*children: Child, class_: str | None = None) -> Markup:
    """One paragraph."""
    return element("p", *children, class_=class_)


def table(
    head: Iterable[Child], rows: Iterable[Iterable[Child]], class_: str | None = None
) -> Markup:
    """A table in a box that scrolls sideways when the page is narrow.

    The first cell of each row is the row's header. A row may be a ready-made <tr>.
    """
    columns = element("tr", [element("th", cell, scope="col") for cell in head])
    body = [row if isinstance(row, Markup) else _row(row) for row in rows]
    inner = element("table", element("thead", columns), element("tbody", body), class_=class_)
    return element("div", inner, class_="scroll", tabindex="0")


def _row(cells: Iterable[Child]) -> Markup:
    first, *rest = cells
    return element("tr", element("th", first, scope="row"), [element("td", cell) for cell in rest])


def _texts(child: Child) -> Iterable[str]:
    if child is None:
        return
    if isinstance(child, Markup):
        yield str(child)
    elif isinstance(child, str | int | float):
        yield escape(str(child), quote=False)
    else:
        for inner in child:
            yield from _texts(inner)


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
