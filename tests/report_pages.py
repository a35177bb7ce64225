"""Reading a report as a browser would: tags that close, texts, links; and a network with hostile names."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import onnx
from conftest import small_network

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">&amp;'<!--"
"""A name that must stay text wherever it is shown."""

_VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """``tags`` (name, attributes), ``texts`` by enclosing tag, ``ids``; ``problems`` of nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.problems += [f"{name} is not closed" for name in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.append((self._open[-1], data))

    @property
    def data(self) -> dict[str, Any]:
        """What the script is given."""
        return dict(json.loads(next(text for tag, text in self.texts if tag == "script")))

    def all_in(self, *tags: str) -> list[str]:
        """Texts directly inside of elements of these names."""
        return [text for tag, text in self.texts if tag in tags]


def hostile_network() -> onnx.ModelProto:
    """``small_network`` whose second convolution, with its weight, has a name that would break a careless page."""
    model = small_network()
    for node in model.graph.node:
        if node.name == "conv2":
            node.name = HOSTILE
        node.input[:] = [HOSTILE + "w" if name == "conv2.weight" else name for name in node.input]
    for weight in model.graph.initializer:
        if weight.name == "conv2.weight":
            weight.name = HOSTILE + "w"
    return model
