"""The page in a real browser: what a person sees, with a mouse, with the keyboard alone, on a phone."""

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_examples import HOSTILE, PAGE_CLASSES, colour_model
from serving_examples import Server, picture

sync_api = pytest.importorskip("playwright.sync_api", reason="Needs pip install 'kerascnn[clients]'.")
expect = sync_api.expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="There is no chromium, chromium-browser or google-chrome here."),
]
RED = {"name": "red.png", "mimeType": "image/png", "buffer": picture((230, 20, 20), (60, 80))}
DARK = {"name": "dark.png", "mimeType": "image/png", "buffer": picture((0, 0, 0))}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def colours(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a model with heat maps, one without, and one that takes no pictures."""
    folder = tmp_path_factory.mktemp("page")
    colour_model(folder / "colours/3")
    for name in ("half/123", "tiny/1"):
        shutil.copytree(models / name, folder / name)
    with Server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, colours: Server) -> Iterator[Any]:
    """Opens the page; at the end: no script error, no alert, and nobody else was asked for anything."""
    contexts, wrong = [], []

    def open_page(path: str = "/", before: Any = None, **options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        page.on("request", lambda asked: wrong.append(asked.url) if foreign(asked.url) else None)
        if before is not None:
            before(page)
        page.goto(colours.url + path)
        return page

    def foreign(url: str) -> bool:
        return not url.startswith((colours.url + "/", "blob:", "data:"))

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def choose(page: Any, file: dict[str, Any] = RED) -> None:
    expect(page.get_by_role("button", name="Choose")).to_be_visible()
    page.locator("#file").set_input_files(file)


def rows(page: Any, head: str) -> list[list[str]]:
    section = page.locator(".head").filter(has=page.get_by_role("heading", name=head, exact=True))
    section.wait_for()
    parts = (section.locator(part).all_text_contents() for part in ("li .name", "li .share"))
    return [list(row) for row in zip(*parts, strict=True)]


def test_a_picture_gets_the_top_classes_of_every_head(open_page: Any, colours: Server) -> None:
    """As bars in order, with the shares that the server gives; a class name with markup stays text."""
    page = open_page()
    choose(page)
    shown = {head: rows(page, head) for head in PAGE_CLASSES}
    body = {"signature_name": "serving_bytes", "instances": [{"b64": base64.b64encode(RED["buffer"]).decode()}]}
    right = colours.post("/v1/models/colours:predict", body).json["predictions"][0]
    for head, names in PAGE_CLASSES.items():
        ranked = sorted(zip(right[head], names, strict=True), reverse=True)
        assert [name for name, _ in shown[head]][:5] == [name for _, name in ranked][:5]
        number = float(re.sub(r"[^\d.]", "", shown[head][0][1]))
        assert number == pytest.approx(100 * ranked[0][0], abs=0.11)
    assert shown["colour"][0][0] == HOSTILE
    expect(page.get_by_role("status")).to_contain_text(f"colour: {HOSTILE}, ")  # what a screen reader says
    expect(page.locator("#time")).to_have_text(
        re.compile(r"Answered in [\d.]+ m?s by colours, version 3, with [\w ]+\.")
    )
    widths = [bar.evaluate("bar => parseFloat(bar.style.width)") for bar in page.locator(".head .bar i").all()]
    assert max(widths) == pytest.approx(100 * max(map(max, right.values())), abs=0.1)
    expect(page.get_by_role("img", name="red.png")).to_be_visible()
    expect(page.locator("#caption")).to_contain_text("80\u00a0×\u00a060")


def test_the_file_itself_is_sent(open_page: Any) -> None:
    page = open_page()
    with page.expect_request("**/*:predict") as asked:
        choose(page)
    sent = json.loads(asked.value.post_data)["instances"][0]["b64"]
    assert base64.b64decode(sent) == RED["buffer"]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_can_be_dropped_and_pasted(open_page: Any, event: str) -> None:
    page = open_page()
    expect(page.locator("#choose")).to_be_visible()
    page.evaluate(
        """([event, data]) => {
            const carried = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
            carried.items.add(new File([bytes], "carried.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true, dataTransfer: carried, clipboardData: carried };
            document.body.dispatchEvent(new (event === "drop" ? DragEvent : ClipboardEvent)(event, options));
        }""",
        [event, base64.b64encode(RED["buffer"]).decode()],
    )
    expect(page.locator("#caption")).to_contain_text("carried.png")
    assert rows(page, "colour")[0][0] == HOSTILE


def test_the_keyboard_alone_is_enough(open_page: Any) -> None:
    page = open_page()
    expect(page.locator("#choose")).to_be_visible()
    order = []
    for _ in range(4):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        order.append((page.evaluate("document.activeElement.id || document.activeElement.textContent"), outline))
    assert [name for name, _ in order] == ["model", "choose", "Interface for programs", "Metrics"]
    assert {outline for _, outline in order} == {"solid"}
    page.locator("#choose").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(RED)
    assert rows(page, "colour")[0][0] == HOSTILE
    page.get_by_label("colour").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("off")).to_be_checked()
    expect(page.locator("#heat")).to_be_hidden()
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("details li").last).to_be_visible()


def test_the_heat_map_lies_over_the_picture(open_page: Any) -> None:
    """Of the head that is chosen, at the place it speaks of: here the left is hot."""
    page = open_page()
    choose(page)
    expect(page.locator("#heat")).to_be_visible()
    ends = "canvas => [0, 7].map(x => [...canvas.getContext('2d').getImageData(x, 4, 1, 1).data])"
    hot, cold = page.locator("#heat").evaluate(ends)
    assert sum(hot[:3]) > 600 > 100 > sum(cold[:3])
    assert page.locator("#heat").bounding_box() == page.locator("#picture").bounding_box()
    page.get_by_label("bright").check()
    left, right = page.locator("#heat").evaluate(ends)
    assert left == right
    page.get_by_label("Model").select_option(label="tiny · version 1")  # has none
    assert rows(page, "size")
    expect(page.locator("#heat")).to_be_hidden()
    expect(page.get_by_role("group", name="Heat map")).to_be_hidden()


def test_a_model_that_takes_no_pictures_cannot_be_chosen(open_page: Any) -> None:
    page = open_page()
    option = page.locator("option", has_text="half")
    expect(option).to_have_text("half · takes no pictures")
    expect(option).to_be_disabled()


def test_a_phone_of_360_pixels_shows_everything(open_page: Any) -> None:
    page = open_page(**PHONE)
    expect(page.get_by_role("button", name="Take a picture")).to_be_visible()
    assert page.locator("#camera-file").get_attribute("capture") == "environment"
    choose(page, {**RED, "name": "a-name-without-any-space-" * 8 + ".png"})
    expect(page.locator("#heat")).to_be_visible()
    expect(page.locator(".head h2").first).to_be_in_viewport()
    expect(page.locator("#picture")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for button in page.get_by_role("button").all():
        assert button.bounding_box()["height"] >= 44
    page.goto(page.url + "docs")
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


CONTRASTS = """() => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
    const behind = one => {
        for (; one; one = one.parentElement) {
            const colour = numbers(getComputedStyle(one).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const said = one => [...one.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    return [...document.body.querySelectorAll("*")]
        .filter(one => one.checkVisibility() && !one.closest("script, noscript, .unseen") && said(one)).map(one => {
            const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), one.tagName + ": " + one.textContent.trim().slice(0, 40)];
        });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_sufficient(open_page: Any, scheme: str) -> None:
    """At least 4.5 for every text (WCAG 2.2, 1.4.3), in the answer, in an error, in the docs."""
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    choose(page)
    expect(page.locator("#time")).to_be_visible()
    found = page.evaluate(CONTRASTS)
    page.locator("#file").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.get_by_role("alert")).to_be_visible()
    found += page.evaluate(CONTRASTS)
    page.goto(page.url + "docs")
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    found += page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert min(found)[0] >= 4.5, min(found)


def test_who_asks_for_less_motion_gets_none(open_page: Any) -> None:
    moving = "getComputedStyle(document.getElementById('drop')).transitionDuration"
    assert open_page().evaluate(moving) != "0s"
    assert open_page(reduced_motion="reduce").evaluate(moving) == "0s"


def test_what_is_no_picture_gets_the_servers_sentence(open_page: Any) -> None:
    page = open_page()
    choose(page, {"name": "holiday.heic", "mimeType": "image/heic", "buffer": b"\0\0\0\x18ftypheic" + bytes(64)})
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server could not use this picture.")
    assert len(alert.locator("#said").inner_text()) > 20
    expect(page.get_by_text("This browser cannot show this file.")).to_be_visible()
    choose(page, {**RED, "buffer": b""})
    expect(alert).to_contain_text("This file is empty.")
    choose(page)
    expect(page.locator("#time")).to_be_visible()
    expect(alert).to_be_hidden()


def test_what_is_too_large_is_said_before_it_is_sent(open_page: Any, colours: Server) -> None:
    facts = {**colours.get("/page/models.json").json, "max_body": 2048}
    page = open_page(before=lambda page: page.route("**/page/models.json", lambda route: route.fulfill(json=facts)))
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "predict" in request.url else None)
    choose(page, {**RED, "buffer": RED["buffer"] + bytes(4000)})
    expect(page.get_by_role("alert")).to_contain_text("The picture is too large: it has 4\u00a0kB")
    expect(page.get_by_role("alert")).to_contain_text("up to 768\u00a0bytes")
    assert asked == []


def test_a_busy_server_asks_to_try_again(open_page: Any) -> None:
    page = open_page()
    busy = {"status": 503, "headers": {"Retry-After": "7"}, "json": {"error": "The queue is full."}}
    page.route("**/*:predict", lambda route: route.fulfill(**busy))
    choose(page)
    expect(page.get_by_role("alert")).to_contain_text("The server is busy just now. Try again in 7 seconds.")
    expect(page.get_by_role("alert")).to_contain_text("The queue is full.")
    page.unroute("**/*:predict")
    page.get_by_role("button", name="Try again").click()
    assert rows(page, "colour")[0][0] == HOSTILE
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_is_gone_is_said_to_be(open_page: Any) -> None:
    page = open_page()
    page.route("**/*:predict", lambda route: route.abort())
    choose(page)
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")


def test_a_version_that_was_replaced_is_followed(open_page: Any, colours: Server) -> None:
    """The page still shows version 2, of which the server knows nothing any more."""
    old = json.loads(json.dumps(colours.get("/page/models.json").json).replace('"version": "3"', '"version": "2"'))
    page = open_page(
        before=lambda page: page.route("**/page/models.json", lambda route: route.fulfill(json=old), times=1)
    )
    expect(page.get_by_label("Model")).to_contain_text("colours · version 2")
    choose(page)
    expect(page.locator("#time")).to_contain_text("by colours, version 3")


def test_a_server_with_a_token_is_given_it(open_page: Any) -> None:
    def guard(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": "A token is needed."})

    def guarded(page: Any) -> None:
        page.route("**/page/models.json", guard)
        page.route("**/*:predict", guard)

    page = open_page(before=guarded)
    field = page.get_by_label("Token")
    expect(field).to_be_focused()
    for token, said in (("wrong", "The server did not accept this token."), ("secret", None)):
        field.fill(token)
        page.keyboard.press("Enter")
        if said:
            expect(page.get_by_text(said)).to_be_visible()
    expect(field).to_be_hidden()
    choose(page)
    assert rows(page, "colour")[0][0] == HOSTILE


def test_without_a_model_the_page_waits_for_one(open_page: Any, colours: Server) -> None:
    waiting = {**colours.get("/page/models.json").json, "models": []}
    page = open_page(
        before=lambda page: page.route("**/page/models.json", lambda route: route.fulfill(json=waiting), times=1)
    )
    expect(page.get_by_role("heading", name="No model to ask yet")).to_be_visible()
    choose(page)  # looks again by itself
    assert rows(page, "colour")[0][0] == HOSTILE


def test_a_version_that_cannot_be_loaded_is_named(open_page: Any, colours: Server) -> None:
    facts = colours.get("/page/models.json").json
    facts["models"][0]["failed"] = [{"version": "4", "message": "saved_model.pb is damaged <b>."}]
    page = open_page(before=lambda page: page.route("**/page/models.json", lambda route: route.fulfill(json=facts)))
    expect(page.get_by_text("colours, version 4, could not be loaded: saved_model.pb is damaged <b>.")).to_be_visible()
    choose(page, DARK)
    assert rows(page, "colour")[0][0] == "black"
