"""Pages in a real Chromium, without a window. Tests are skipped where it, or what drives it, is not installed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("ADVANCHOR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
SERIOUS = ("serious", "critical")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is on the PATH, and ADVANCHOR_CHROMIUM is not set")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, url: str, width: int = 1280, scheme: str = "light", **options: Any) -> Iterator[Any]:
    """A page that asks for nothing but itself and its own pictures, and has no errors until the end."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    context.set_default_timeout(120_000)
    page, trouble = context.new_page(), []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith((origin(url), "data:")) or trouble.append(request.url))
    try:
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not trouble, trouble


def origin(url: str) -> str:
    return url if url.startswith("file:///") and "/report/" not in url else url.partition("/report/")[0]


def axe(page: Any) -> list[str]:
    """What axe-core finds that is serious, in a line each."""
    checker = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not there")
    found = checker.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in SERIOUS
    ]
