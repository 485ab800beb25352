"""Loads templates whose line breaks are for their readers: browsers get none of them.

As in JSX, a line break with the indentation around it is nothing beside a tag, an HTML one or
one of Django's, and one space between two words. A space beside a tag stands within a line.
A tag may go over several lines. Line numbers of errors stay those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.template import Origin, Template
from django.template.base import NodeList, TextNode
from django.template.loaders import app_directories, cached, filesystem

TAG = re.compile(r"({%.*?%}|{{.*?}}|{#.*?#})", re.DOTALL)
BREAK = re.compile(r"\s*\n\s*")
BESIDE_A_TAG = re.compile(r"(?<=>)\s*\n\s*|\s*\n\s*(?=<)")


class Loader(cached.Loader):
    """Django's cached loader, which keeps templates of the project's folder without line breaks."""

    def get_contents(self, origin: Origin) -> str:
        """Return a file's text; of ours with each of Django's tags on one line."""
        source = super().get_contents(origin)
        return "".join(join_tags(source)) if is_ours(origin) else source

    def get_template(self, template_name: str, skip: list[Origin] | None = None) -> Template:
        """Return a template; the texts of ours have no line breaks."""
        template = super().get_template(template_name, skip)
        if is_ours(template.origin) and not hasattr(template, "joined"):
            for node in texts_of(template.nodelist):
                node.s = join_lines(node.s)
            template.joined = True  # type: ignore[attr-defined]
        return template


def texts_of(nodes: NodeList) -> Iterator[TextNode]:
    """Yield every text of a template, wherever it stands.

    Django's own walk (`get_nodes_by_type`) passes by what a `simple_block_tag` stands around.
    """
    for node in nodes:
        if isinstance(node, TextNode):
            yield node
        for name in {*node.child_nodelists, "nodelist"}:
            yield from texts_of(getattr(node, name, None) or NodeList())


def is_ours(origin: Origin) -> bool:
    """Whether a template is the project's own; those of packages stay as they are."""
    return isinstance(origin.loader, filesystem.Loader) and not isinstance(
        origin.loader, app_directories.Loader
    )


def join_tags(source: str) -> Iterator[str]:
    """Yield a source in pieces, with tags joined; their line breaks follow at the next one."""
    owed = 0
    for position, part in enumerate(TAG.split(source)):
        if position % 2:
            owed += part.count("\n")
            yield BREAK.sub(" ", part)
        elif owed and "\n" in part:
            yield part.replace("\n", "\n" * (owed + 1), 1)
            owed = 0
        else:
            yield part


def join_lines(text: str) -> str:
    """Return what stands between two of Django's tags without line breaks."""
    text = re.sub(r"\A\s*\n\s*|\s*\n\s*\Z", "", text)
    return BREAK.sub(" ", BESIDE_A_TAG.sub("", text))
