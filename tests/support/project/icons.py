"""Draws the icons of the pages from `icon.svg`: `python -m support.project.icons`."""

from __future__ import annotations

from pathlib import Path

from support.gateway.browser import chromium

STATIC = Path(__file__).parents[3] / "server" / "opencode_pages" / "static"
SIZES = (192, 512)


def draw() -> None:
    svg = (STATIC / "icon.svg").read_text()
    with chromium() as browser:
        for size in SIZES:
            page = browser.new_page(viewport={"width": size, "height": size})
            page.set_content(
                f"<style>body {{ margin: 0 }} svg {{ display: block; width: 100vw; height: 100vh }}</style>{svg}"
            )
            page.screenshot(path=STATIC / f"icon-{size}.png")


if __name__ == "__main__":
    draw()
