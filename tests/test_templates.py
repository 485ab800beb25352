"""Templates are written to be read, and what is there for their readers reaches no browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.template import Context, TemplateSyntaxError, engines
from django.template.base import Node, TextNode
from django.template.loader import get_template

from dashboard.embedded.processes import ROOT
from dashboard.lines import TAG, join_lines, join_tags

TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
LONGEST = 120
"""Characters of a line, and lines of a file."""
SIBLINGS = re.compile(r"</(?:td|th|tr|li|section|div|p|ul|ol|table|thead|tbody|form)><(?!/)")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT / "templates"))


def source_of(text: str) -> str:
    """Return what a text is to Django: tags as they are, what stands between without breaks."""
    parts = TAG.split("".join(join_tags(text)))
    return "".join(part if place % 2 else join_lines(part) for place, part in enumerate(parts))


@pytest.mark.parametrize("path", TEMPLATES, ids=names)
def test_one_element_stands_on_a_line_and_not_too_many_lines_in_a_file(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    wrong = [f"{len(lines)} lines"] if len(lines) > LONGEST else []
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST:
            wrong.append(f"line {number} has {len(line)} characters")
        if SIBLINGS.search(line):
            wrong.append(f"line {number} has two elements")
        if line != line.rstrip():
            wrong.append(f"line {number} ends with blanks")

    assert wrong == []


def all_texts(thing: object) -> Iterator[TextNode]:
    """Find texts wherever a node keeps other nodes, by whatever name."""
    if isinstance(thing, TextNode):
        yield thing
    elif isinstance(thing, list | tuple):
        for one in thing:
            yield from all_texts(one)
    elif isinstance(thing, Node):
        yield from all_texts([*vars(thing).values()])


@pytest.mark.parametrize("path", TEMPLATES, ids=names)
def test_no_line_break_reaches_a_browser(path: Path) -> None:
    template = get_template(names(path)).template  # type: ignore[attr-defined]

    texts = [node.s for node in all_texts(template.nodelist)]
    assert [text for text in texts if "\n" in text] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=names)
def test_no_two_attributes_become_one(path: Path) -> None:
    """A break between an attribute and a condition is none: the blank stands inside of that."""
    text = source_of(path.read_text(encoding="utf-8"))
    text = TAG.sub(lambda tag: tag[0].replace('"', "'"), text)
    glued = re.compile(r"<[a-z][^<>]*=\"[^\"<>]*\"(?:{% (?:if|for|with) [^%]*%})?[a-z]")

    assert glued.findall(text) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=names)
def test_no_word_is_glued_to_a_value(path: Path) -> None:
    """A break between a word and a value is nothing, which the ending of a plural alone wants."""
    text = re.sub(r"<[^<>]*>", "<>", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    glued = re.compile(
        r"[\w,.:;)][^\S\n]*\n\s*{{(?![^{}]*\|pluralize)[^{}]*}}|{{[^{}]*}}[^\S\n]*\n\s*[\w(]"
    )

    assert glued.findall(text) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=names)
def test_a_panel_with_a_title_is_written_by_its_tag(path: Path) -> None:
    by_hand = re.compile(r'class="panel-head">\s*<h2')

    assert by_hand.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            '{% panel title note="since <then>" %}<p>{{ x }}</p>{% endpanel %}',
            '<section class="panel" aria-label="A &amp; B"><div class="panel-head"><h2>A &amp; B</h2>'
            '<span class="muted">since <then></span></div><p>1</p></section>',
        ),
        (
            '{% panel "Log" label="All" hushed=True id="log" still=True %} {% head %}<i>{{ x }}</i>'
            "{% endhead %}rows{% endpanel %}",
            '<section class="panel" id="log" aria-label="All" data-still><div class="panel-head">'
            '<h2 class="hush">Log</h2><i>1</i></div>rows</section>',
        ),
    ],
)
def test_a_panel_has_its_title_and_what_stands_beside_it(text: str, written: str) -> None:
    engine = engines["django"].engine  # type: ignore[attr-defined]
    template = engine.from_string("{% load panels %}" + text)

    assert template.render(Context({"title": "A & B", "x": 1})) == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% panel %}{% endpanel %}", "panel takes a title"),
        (
            '{% panel "Log" colour="red" %}{% endpanel %}',
            "panel takes a title and hushed, id, label",
        ),
        ('{% panel "Log" %}rows{% head %}{% endhead %}{% endpanel %}', "head comes first"),
    ],
)
def test_what_no_panel_takes_is_said(text: str, said: str) -> None:
    engine = engines["django"].engine  # type: ignore[attr-defined]

    with pytest.raises(TemplateSyntaxError, match=said):
        engine.from_string("{% load panels %}" + text)


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("<p>\n  A word\n  and another.\n</p>\n", "<p>A word and another.</p>"),
        ("<b>a</b>\n  <b>b</b>", "<b>a</b><b>b</b>"),
        ("<b>a</b> <b>b</b>", "<b>a</b> <b>b</b>"),
        ("{{ a }}\n{{ b }}, {{ c }}", "{{ a }}{{ b }}, {{ c }}"),
        ('<a\n    class="x"\n    href="y">z</a>', '<a class="x" href="y">z</a>'),
        ('{% include "x.html"\n    with a=b %}\n<p>', '{% include "x.html" with a=b %}<p>'),
        ("one\n\n  two", "one two"),
    ],
)
def test_a_break_is_nothing_beside_a_tag_and_a_blank_between_words(text: str, joined: str) -> None:
    assert source_of(text) == joined


def test_a_tag_over_several_lines_moves_no_line_number() -> None:
    text = "a\n{% if\n x %}\nb\nc\n{% endif %}\nd"

    found = "".join(join_tags(text))

    assert found.count("\n") == text.count("\n")
    assert found.splitlines().index("d") == text.splitlines().index("d")


def test_templates_of_packages_stay_as_they_are() -> None:
    engine = engines["django"].engine  # type: ignore[attr-defined]
    origin = next(
        iter(engine.template_loaders[0].get_template("base.html").origin.loader.get_dirs())
    )
    assert Path(origin) == ROOT / "templates"
    assert engine.from_string("a\nb").render(Context()) == "a\nb"


@pytest.mark.parametrize("path", TEMPLATES, ids=names)
def test_what_a_template_loads_it_uses(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    loaded = {
        word for words in re.findall(r"{% load ([^%]*?) %}", source) for word in words.split()
    }
    libraries = engines["django"].engine.template_libraries  # type: ignore[attr-defined]
    idle = set()
    for name in loaded:
        library = libraries[name]
        tags = rf"{{%\s*({'|'.join(library.tags)})\b" if library.tags else None
        filters = rf"\|\s*({'|'.join(library.filters)})\b" if library.filters else None
        if not any(pattern and re.search(pattern, source) for pattern in (tags, filters)):
            idle.add(name)

    assert idle == set()
