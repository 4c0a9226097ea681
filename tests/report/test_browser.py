"""The report and the review in Chromium: real clicks and keys."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import axe, chromium, visit
from patience import wait_until
from published import attempt, entry, publish, scores, task, write_status

from advanchor.report.compare import compare
from advanchor.report.html import write_report
from advanchor.report.review import Review, serve
from advanchor.rundir.store import Store
from advanchor.rundir.verdicts import verdicts

HOSTILE = (
    "<img src=x onerror=alert(1)>", '" onmouseover="alert(1)', "</script><script>alert(1)</script>", "{{7*7}}",
    "Ωmega 🦊",
)  # fmt: skip
NAMES = (*HOSTILE, "striped", "dotted", "solid", "gradient")
SIZES = [(1280, "light"), (390, "dark")]


def write_run(folder: Path, shift: float = 0.0) -> Store:
    store = Store(str(folder))
    tasks = [task(name, "object" if name == "solid" else "style") for name in NAMES]
    for number, made in enumerate(tasks):
        scales = {"0.5": scores(number / 20)}
        publish(store, made, scores(number / 10 + shift, scales=scales))
        attempt(store, made, 100.0 + 10 * number, 108.0 + 10 * number)
    failed = task("broken <b>")
    attempt(store, failed, 300.0, 330.0, "Broke", gang=2, reason="OutOfMemoryError", details="<b>Traceback</b>\n" * 40)
    write_status(store, *map(entry, tasks), entry(failed, "failed", "OutOfMemoryError: <b>2 GiB</b>", 3))
    return store


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = write_run(tmp_path_factory.mktemp("run"))
    write_report(store)
    return store


@pytest.fixture(scope="module")
def url(store: Store) -> str:
    return Path(store.path("report/index.html")).as_uri()


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript, which pages under such a policy cannot wait for themselves."""
    wait_until(lambda: page.evaluate(condition), condition)


def names(page: Any) -> list[str]:
    return page.locator("#table tbody tr:not([hidden]) .name bdi").all_inner_texts()


def test_search_filters_and_sorting(browser: Any, url: str) -> None:
    with visit(browser, url) as page:
        assert names(page) == ["broken <b>", *NAMES]
        page.keyboard.press("/")
        page.keyboard.type("ED SCR")
        assert names(page) == []
        page.get_by_role("button", name="Show all").click()
        assert len(names(page)) == len(NAMES) + 1
        page.locator("#search").fill("2 gib")  # a reason
        assert names(page) == ["broken <b>"]
        page.locator("#search").fill("")
        page.locator("#kind").select_option("object")
        assert names(page) == ["solid"] and page.locator("#count").inner_text() == "1 of 10 concepts"
        page.locator("#kind").select_option("")
        page.locator("#status").select_option("failed")
        assert names(page) == ["broken <b>"]
        page.locator("#status").select_option("")
        page.locator("#most").fill("10")
        assert names(page) == list(NAMES[:2])
        page.locator("#most").fill("")
        page.get_by_role("button", name="UA").click()
        page.get_by_role("button", name="UA").click()
        assert names(page) == [*reversed(NAMES), "broken <b>"]
        assert page.locator("th[data-key=ua]").get_attribute("aria-sort") == "descending"
        page.locator("#sort").select_option("order")
        assert names(page)[0] == NAMES[0]


def test_a_concept_opens_large_and_the_keyboard_goes_on(browser: Any, url: str) -> None:
    with visit(browser, url) as page:
        viewer = page.locator("#viewer")
        page.get_by_role("link", name="dotted").click()
        page.locator("#viewer .stage").wait_for()
        assert viewer.locator(".strip button").count() == 16
        assert page.evaluate("document.querySelector('.views canvas').width") >= 480
        assert viewer.get_by_text("Scores by scale of the delta").is_visible()
        page.keyboard.press("2")
        assert viewer.get_by_role("slider").is_visible()
        viewer.get_by_role("slider").fill("25")
        assert page.locator(".views canvas").nth(1).evaluate("c => c.style.clipPath") == "inset(0px 0px 0px 25%)"
        viewer.get_by_role("button", name="Flicker").click()
        until(page, "document.querySelector('.views').classList.contains('base')")
        until(page, "!document.querySelector('.views').classList.contains('base')")
        page.keyboard.press("ArrowRight")
        until(page, "document.querySelector('.where').textContent.includes('solid')")
        viewer.get_by_role("button", name="Previous").click()
        page.keyboard.press("k")
        until(page, "document.querySelector('.where').textContent.includes('striped')")
        page.keyboard.press("Escape")
        viewer.wait_for(state="hidden")
        until(page, "document.activeElement.textContent.trim() === 'striped'")
        assert page.locator(".cards .card").count() == len(NAMES) + 1  # each is back in its place


def test_a_link_leads_to_a_concept_and_a_failure_has_its_log(browser: Any, url: str) -> None:
    with visit(browser, f"{url}#task-{task('broken <b>').id}") as page:
        viewer = page.locator("#viewer")
        viewer.get_by_text("The error in full").click()
        assert viewer.get_by_text("<b>Traceback</b>").first.is_visible()
        viewer.get_by_role("button", name="Close").click()
        page.locator("#failures + .failure a").click()
        viewer.wait_for()


def test_pictures_are_in_the_table_when_they_are_in_sight(browser: Any, url: str) -> None:
    with visit(browser, url) as page:
        until(page, "[...document.querySelectorAll('#table canvas')].some(c => c.width > 160)")
        assert page.locator("#table canvas").count() == len(NAMES)


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_axe_finds_nothing_serious_and_no_page_is_too_wide(browser: Any, url: str, width: int, scheme: str) -> None:
    with visit(browser, url, width, scheme) as page:
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("link", name="striped").click()
        page.locator("#viewer .stage").wait_for()
        assert axe(page) == []
        assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= width


def test_the_page_says_everything_without_scripts(browser: Any, url: str) -> None:
    with visit(browser, url, java_script_enabled=False) as page:
        assert page.locator(".card").count() == len(NAMES) + 1
        assert page.locator(".card img").first.is_visible() and not page.locator(".tools").is_visible()


def test_a_printed_page_has_no_controls(browser: Any, url: str) -> None:
    with visit(browser, url) as page:
        page.emulate_media(media="print")
        assert not page.locator(".tools").is_visible() and page.locator(".card").first.is_visible()


def test_two_runs_compared(browser: Any, store: Store, tmp_path: Path) -> None:
    other = write_run(tmp_path / "b", shift=0.1)
    page_bytes, _ = compare(store, other)
    other.write("report/compared.html", page_bytes)
    with visit(browser, Path(other.path("report/compared.html")).as_uri()) as page:
        assert page.locator("#count").inner_text() == "10 concepts"
        page.locator("#outcome").select_option("better")
        assert len(names(page)) == len(NAMES)
        page.get_by_role("button", name="Concept").click()
        assert axe(page) == []


@contextmanager
def reviewing(store: Store) -> Iterator[str]:
    """The address of a review that runs beside the test."""
    loop, addresses = asyncio.new_event_loop(), []
    server = loop.create_task(serve(Review(store, "mira"), 0, addresses.append))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        wait_until(lambda: addresses, "the review's server listens")
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(server.cancel)
        wait_until(server.done, "the review's server ends")
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def words(store: Store) -> dict[str, tuple[str, str]]:
    results = store.results()
    known = {result["task"]: result["concept"]["name"] for result in results}
    return {known[task]: (one.verdict, one.note) for task, one in verdicts(store, results).items()}


def test_a_review_by_mouse_and_keyboard(browser: Any, tmp_path: Path) -> None:
    store = write_run(tmp_path)
    with reviewing(store) as address:
        with visit(browser, address) as page:
            viewer = page.locator("#viewer")
            page.get_by_role("link", name="striped").click()
            viewer.locator(".stage").wait_for()
            assert axe(page) == []
            viewer.get_by_role("button", name="Reject").click()
            assert "needs a reason" in viewer.locator(".said").inner_text()
            viewer.get_by_label("Note").fill("<b>a stripe</b> is left")
            viewer.get_by_role("button", name="Reject").click()
            until(page, "document.querySelector('.where').textContent.includes('dotted')")  # it goes on
            assert viewer.get_by_label("Note").input_value() == ""
            page.keyboard.press("Escape")
            page.get_by_role("link", name="dotted").click()
            page.keyboard.press("a")
            until(page, "document.querySelector('.where').textContent.includes('solid')")
            assert words(store) == {"striped": ("reject", "<b>a stripe</b> is left"), "dotted": ("accept", "")}
            page.keyboard.press("Escape")
            page.locator("#verdict").select_option("reject")
            assert names(page) == ["striped"]
        with visit(browser, address) as page:
            assert page.locator("tr[data-name=striped] .word").inner_text() == "reject"
            page.get_by_role("link", name="dotted").click()
            page.get_by_role("button", name="Accept").click()  # once more takes it back
            until(page, "document.querySelector('.said').textContent.includes('no verdict')")
    assert words(store) == {"striped": ("reject", "<b>a stripe</b> is left")}
