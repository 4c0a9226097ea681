"""python tests/report/look.py RUN [FOLDER]: how fast a report opens and sorts in Chromium; pictures into FOLDER."""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import chromium, visit

from advanchor.report.html import whole_report, write_report
from advanchor.rundir.store import Store

ROUNDS = 5
SORT = """() => {
  const started = performance.now();
  document.querySelector("th[data-key=ua] button").click();
  document.body.offsetHeight;  // laid out
  return performance.now() - started;
}"""
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
FIGURES = ("loaded", "of that, CPU time of the page's thread", "first sort", "of that, CPU time")


def opened(browser: Any, url: str) -> tuple[float, ...]:
    """FIGURES in milliseconds. CPU time is what remains comparable on a machine that others use, too."""
    with visit(browser, url) as page:
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def cpu_ms() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return 1000 * next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

        begun = cpu_ms()
        page.reload()
        loaded = cpu_ms()
        sorting = page.evaluate(SORT)
        return page.evaluate(LOADED), loaded - begun, sorting, cpu_ms() - loaded


def look(browser: Any, url: str, folder: Path) -> None:
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            with visit(browser, url, width, scheme) as page:
                page.locator("#concepts").scroll_into_view_if_needed()
                page.locator("#table canvas").first.wait_for()
                page.wait_for_load_state("networkidle")
                page.screenshot(path=folder / f"report-{width}-{scheme}.png")
                page.evaluate("document.querySelector('#concepts').scrollIntoView()")
                page.wait_for_load_state("networkidle")
                page.screenshot(path=folder / f"table-{width}-{scheme}.png")
                page.locator("tr:has(canvas) .name a").first.click()
                page.locator("#viewer .stage").wait_for()
                page.screenshot(path=folder / f"concept-{width}-{scheme}.png")
                page.keyboard.press("Escape")
                page.evaluate("document.querySelector('#timeline')?.scrollIntoView()")
                page.screenshot(path=folder / f"timeline-{width}-{scheme}.png")


def main(run: str, folder: str = "") -> None:
    store = Store(run)
    started = time.perf_counter()
    path = Path(write_report(store))
    print(f"written in {time.perf_counter() - started:.1f} s: {path.stat().st_size / 1e6:.2f} MB")
    print(f"with every picture in it: {len(whole_report(store)) / 1e6:.1f} MB")
    with chromium() as browser:
        found = [opened(browser, path.as_uri()) for _ in range(ROUNDS)]
        for what, values in zip(FIGURES, zip(*found, strict=True), strict=True):
            print(f"{what}: median {statistics.median(values):.0f} ms of {ROUNDS}, at most {max(values):.0f} ms")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            look(browser, path.as_uri(), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
