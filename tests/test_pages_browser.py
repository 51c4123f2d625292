"""The pages in a real browser without a network: complete, quiet, and as wide as a phone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="Needs pip install 'kerascnn[clients]'.")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="There is no chromium, chromium-browser or google-chrome here."),
]
PAGES = ("report", "explain", "compare")


@pytest.fixture(scope="module")
def pages(digits_run, tmp_path_factory) -> dict[str, Path]:
    """The report of a run, its explanation, and its comparison with a worse one."""
    from apps.compare.compare import compare
    from apps.console import Console
    from apps.explain.command import explain

    folder, console = tmp_path_factory.mktemp("pages"), Console(quiet=True)
    run, worse = digits_run[0] / "runs/digits", folder / "a-run-with-a-rather-long-name-that-must-wrap"
    shutil.copytree(run, worse, ignore=shutil.ignore_patterns("checkpoints"))
    table = pd.read_csv(worse / "validation.csv", dtype=str)
    table.loc[:20, "label_predicted"] = "0"
    table.to_csv(worse / "validation.csv", index=False)
    record = json.loads((worse / "recipe.json").read_text())
    record["recipe"]["lr"] = 10.0
    (worse / "recipe.json").write_text(json.dumps(record))
    found = {name: folder / f"{name}.html" for name in PAGES}
    shutil.copy(run / "report.html", found["report"])
    explain(
        str(run),
        [],
        out=found["explain"],
        layers=[],
        classes=["3"],
        units=[],
        size=None,
        steps=8,
        overwrite=False,
        console=console,
    )
    compare([run, worse], found["compare"], overwrite=False, console=console)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 375])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_without_a_network(browser, pages, name, width, scheme) -> None:
    """No message in the console, no request, all pictures there, nothing to scroll sideways."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.wait_for_function("[...document.images].every(one => one.complete)")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("[...document.images].filter(one => one.naturalWidth === 0 || !one.alt).length") == 0
    drawings = page.evaluate("[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width)")
    assert (drawings == []) == (name == "explain")  # which has pictures only
    assert min(drawings, default=201) > 200
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("name", ["report", "compare"])
def test_words_in_drawings_can_be_read_in_both_themes(browser, pages, name) -> None:
    """Words have the colour of the page's own, light on dark and dark on light."""
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1200, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.goto(pages[name].as_uri())
        colours = page.evaluate("[...document.querySelectorAll('svg text')].map(one => getComputedStyle(one).fill)")
        assert set(colours) == {page.evaluate("getComputedStyle(document.body).color")}
        context.close()


def test_report_prints_on_paper(browser, pages) -> None:
    """Light whatever the theme, without the links between sections; some pages, none wider than the paper."""
    page = browser.new_page(color_scheme="dark", viewport={"width": 718, "height": 1000})  # A4 with its margins
    page.goto(pages["report"].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.locator("text=image_size").first.is_visible()  # of the recipe, whose list is closed on the screen
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
