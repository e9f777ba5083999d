"""README and docs: each link leads somewhere, each shell block is proven, and the site needs nobody else's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.project.docs_site import build
from support.project.documents import ROOT, Block, anchors, blocks, broken, links, pages, unproven, with_links
from support.project.prose import all_faults, faults, synonyms

if TYPE_CHECKING:
    from pathlib import Path

# Elements by which a browser fetches something without being asked.
FETCHED = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*\b(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)"
)
PAGE = """# A `page` of [links](x.md)

[one](a.md#b) and `[none](c.md)`; <img src="d.png">
<!-- run by tests/test_documents.py -->
```sh named
# [not](a-link.md)
```
~~~text
```
~~~

## Twice

## Twice
"""


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_each_link_within_the_repository_leads_somewhere(page: Path) -> None:
    assert broken(page, page.read_text()) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_each_shell_block_says_what_runs_it_or_why_nothing_does(page: Path) -> None:
    assert unproven(page, page.read_text()) == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; each warning of mkdocs would be an error, as of a page that is in no menu."""
    target = tmp_path_factory.mktemp("site")
    assert build(target) == ""
    return target


def test_the_site_has_all_pages(site: Path) -> None:
    expected = {page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for page in pages()[1:]} | {
        "index.html"
    }
    assert {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html"} == expected


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert FETCHED.findall(text) == [], page.name
        # Material's script would fetch what draws these.
        assert not re.search(r"class=[\"']?mermaid", text), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text()), sheet.name


def test_links_of_the_site_out_of_the_documents_lead_to_the_repository(site: Path) -> None:
    text = (site / "gateway.html").read_text()
    assert "/blob/main/server/opencode_gateway/configuration.py" in text
    assert re.search(r"href=[\"']?index.html", text)


def test_the_prose_is_as_it_should_be() -> None:
    assert all_faults() == []


def test_what_is_wrong_with_prose_is_told_with_its_line() -> None:
    text = f"""# One. Two.
Run `a. B` first, e.g. Debian.
One thought. Another one.
- **A lead.** And more.
1. First of all
{"long " * 24}.

| one. Two | {"long " * 24} |
| in order to | a Hub |

    chat client. Gateway

```sh
echo One. Two
```
"""
    assert synonyms()["hub"] == "relay"
    assert faults(ROOT / "docs" / "page.md", text, {"hub": "relay"}) == [
        "page.md:3: more than one sentence",
        "page.md:4: more than one sentence",
        "page.md:6: 121 characters, of at most 120",
        "page.md:9: “in order to”: “to”",
        "page.md:9: “Hub”: “relay”, see the glossary",
    ]


def test_links_blocks_and_headings_are_read_as_markdown_has_them() -> None:
    assert [target for _, target in links(PAGE)] == ["x.md", "a.md#b", "d.png"]
    assert blocks(PAGE) == [Block(5, "sh", "run by tests/test_documents.py"), Block(8, "text", "")]
    assert anchors(PAGE) == {"a-page-of-links", "twice", "twice-1"}
    assert with_links(PAGE, lambda target: f"to/{target}").count("to/") == 3


def test_what_is_wrong_with_a_page_is_told_with_its_line() -> None:
    page = ROOT / "docs" / "page.md"
    text = (
        PAGE.replace("test_documents", "none")
        + "[a](#thrice) [b](gateway.md#nowhere) [c](gateway.md#files) [d](#twice)\n"
    )

    assert broken(page, text) == [
        "page.md:1: x.md leads to no file",
        "page.md:3: a.md#b leads to no file",
        "page.md:3: d.png leads to no file",
        "page.md:15: #thrice leads to no heading",
        "page.md:15: gateway.md#nowhere leads to no heading",
    ]
    assert unproven(page, text) == ["page.md:5: there is no tests/none.py"]
    assert unproven(page, PAGE) == []
