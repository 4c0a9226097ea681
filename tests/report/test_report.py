import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from published import task

from advanchor.batch.plan import Task
from advanchor.evaluation.grids import grid, to_png
from advanchor.report import html
from advanchor.report.html import write_report
from advanchor.report.text import points
from advanchor.rundir.store import Store

GRID = to_png(grid([("base", torch.rand(2, 3, 8, 8)), ("erased", torch.rand(2, 3, 8, 8))], edge=16))
SCORES = {
    "ua": 0.975, "ira": 0.5, "cra": 0.9, "cra_with": 0.8, "cra_without": 0.92, "hinted": None, "degradation": 0.125,
    "base": {"ua": 0.02, "ira": 0.625, "cra": 0.9}, "num_images": {"erased": 100, "retained": 176},
}  # fmt: skip


class Page(HTMLParser):
    """What a browser would see: tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, key: str) -> list[str]:
        return [value or "" for name, value in self.attributes if name == key]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def publish(store: Store, name: str, scores: dict | None = SCORES, base: str = "pocket") -> Task:
    made = task(name)
    result = {
        "task": made.id,
        "base": base,
        "base_digest": made.base_digest,
        "concept": made.concept.model_dump(mode="json"),
        "method": made.method.model_dump(mode="json"),
        "seed": made.seed,
        "scores": scores,
        "scores_key": None,
        "facts": {"student_loss": 0.01, "e_adv_relative_norm": 0.5},
        "seconds": {"erasing": 40.0, "evaluating": 10.0},
        "provenance": {"torch": "2.13.0", "host": "node-3"},
    }
    files = {"delta.safetensors": b"delta"} | ({"erased.png": GRID, "retained.png": GRID} if scores else {})
    store.publish(made, files, result)
    return made


def report(store: Store) -> Page:
    return Page(Path(write_report(store)).read_text())


def test_an_empty_run_directory_has_a_report(store: Store) -> None:
    assert "Concepts erased from" in report(store).text


def test_scores_settings_files_and_versions_are_on_the_page(store: Store) -> None:
    publish(store, "striped")
    page = report(store)
    for shown in ("striped", "97.5", "0.125", "\N{MINUS SIGN}12.5", "preserve_weight", "delta.safetensors", "node-3"):
        assert shown in page.text
    assert "97.5%" in page.all("width") and not page.all("style")


def test_the_title_names_model_method_and_seed(store: Store) -> None:
    publish(store, "striped")
    store.write_json("plan.json", {"spec": {"seed": 1234}})
    text = report(store).text
    assert "pocket" in text and "adv_anchor" in text and "1234" in text


def test_the_seed_is_the_one_that_counted(store: Store) -> None:
    store.write("batch.yaml", b"# --set seed=77\nseed: 1234\n")
    assert "batch seed" not in report(store).text
    store.write_json("plan.json", {"spec": {"seed": 77}})
    assert "batch seed 77" in report(store).text
    store.write_json("plan.json", [])
    assert "batch seed" not in report(store).text


def test_a_run_without_results_yet_is_described(store: Store) -> None:
    tasks = [{"id": "a", "name": "star", "kind": "object", "status": "running", "attempts": 0, "reason": ""}]
    times = {"started_at": 1769853600.0, "updated_at": 1769853660.0}
    store.write_json(
        "status.json", {"state": "running", "model": "some/model", "method": "esd", "tasks": tasks} | times
    )
    text = report(store).text
    for shown in ("some/model", "esd", "2026-01-31 10:00 UTC", "2026-01-31 10:01 UTC", "1 running", "star"):
        assert shown in text


def test_grids_are_embedded_byte_for_byte_and_nothing_else_is_loaded(store: Store) -> None:
    publish(store, "striped")
    page = report(store)
    sources = page.all("src")
    assert [b64decode(source.removeprefix("data:image/png;base64,")) for source in sources] == [GRID, GRID]
    assert (
        page.tags.count("link") == page.all("href").count("data:,") == 1  # an empty icon, so that none is asked for
        and "iframe" not in page.tags
        and "url(" not in Path(store.path("report/index.html")).read_text()
    )


def test_grids_of_many_concepts_are_linked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAX_EMBEDDED", 1)
    publish(store, "AC/DC")
    publish(store, "striped")
    page = report(store)
    folder = Path(store.path("report"))
    assert len(page.all("src")) == 4
    assert all((folder / source).resolve().read_bytes() == GRID for source in page.all("src"))


def test_a_damaged_grid_is_not_shown(store: Store) -> None:
    made = publish(store, "striped")
    entry = store.read_json(store.task_path(made, "result.json"))["files"]["erased"]
    store.write(store.task_path(made, entry["name"]), GRID[:-1])
    page = report(store)
    assert "missing, damaged or too large" in page.text and len(page.all("src")) == 1


HOSTILE = [
    "<script>alert(1)</script>", "</title><script>alert(1)</script>", '" onmouseover="alert(1)', "' onload='alert(1)",
    "{{ 7 * 7 }}", "=cmd()", "../../etc/passwd", "</pre></details><img src=x>", "javascript:alert(1)", "Ωmega 🦊",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_text(store: Store, name: str) -> None:
    harmless = publish(store, "harmless")
    store.write("batch.yaml", name.encode())
    status = {"model": name, "method": name, "state": "running", "started_at": 0.0, "updated_at": 0.0}
    entry = {"id": harmless.id, "name": "harmless", "kind": "style", "status": "done", "attempts": 1, "reason": ""}
    broken = {"id": "e", "name": "harmless", "kind": "style", "status": "failed", "attempts": 3, "reason": "a reason"}
    store.write_json("status.json", status | {"tasks": [entry, broken]})
    expected = report(store)
    publish(store, name)
    failed = {"id": "f", "name": name, "kind": "style", "status": "failed", "attempts": 3, "reason": name}
    done = {"id": task(name).id, "name": name, "kind": "style", "status": "done", "attempts": 1, "reason": ""}
    store.write_json("status.json", status | {"tasks": [entry, done, failed]})
    page = report(store)
    assert page.text.count(name) >= 4
    assert page.tags.count("script") == expected.tags.count("script") == 2
    assert page.tags.count("img") == 4
    assert {key for key, _ in page.attributes} <= {key for key, _ in expected.attributes}
    assert all(re.match(r"data:,$|#|\.\./tasks/[^/]+/[^/]+$", href) for href in page.all("href"))


def test_null_scores_say_not_evaluated(store: Store) -> None:
    publish(store, "AC/DC", scores=None, base="some/model")
    page = report(store)
    assert page.text.count("not evaluated") == 5  # three means, the table, the card
    assert "img" not in page.tags


def test_failures_show_their_reason_and_long_ones_their_last_line(store: Store) -> None:
    traceback = "Traceback (most recent call last):\n  File 'worker.py'\nOutOfMemoryError: 2 GiB"
    tasks = [
        {"id": "a", "name": "star", "kind": "object", "status": "failed", "attempts": 3, "reason": "no such token"},
        {"id": "b", "name": "heart", "kind": "object", "status": "failed", "attempts": 1, "reason": traceback},
    ]
    store.write_json("status.json", {"state": "finished", "model": "pocket", "method": "adv_anchor", "tasks": tasks})
    text = report(store).text
    assert "2 failed" in text and "no such token" in text
    assert text.count("OutOfMemoryError: 2 GiB") == 4 and traceback in text  # the list, the table, the card's two


def test_only_the_pocket_gallery_says_what_it_is_no_evidence_about(store: Store) -> None:
    publish(store, "striped", base="some/model")
    assert "not about Stable Diffusion" not in report(store).text
    publish(store, "dotted")
    assert "not about Stable Diffusion" in report(store).text


def test_the_same_run_directory_gives_the_same_report(store: Store) -> None:
    publish(store, "striped")
    first = Path(write_report(store)).read_bytes()
    assert Path(write_report(store)).read_bytes() == first


def test_points() -> None:
    assert points(0.9, 0.95) == "\N{MINUS SIGN}5.0"
    assert points(0.95, 0.9) == "+5.0"
    assert points(0.90001, 0.9) == points(0.9, 0.90001) == "0.0"
    assert points(None, 0.9) == "\N{EN DASH}"


def test_an_erasure_that_hardly_erases_is_marked(store: Store) -> None:
    publish(store, "striped", SCORES | {"ua": 0.1})
    page = report(store)
    assert "status weak" in page.all("class") and "status done" not in page.all("class")
    assert "hardly erased" in page.text and "1 below 90.0 %" in page.text
    publish(store, "striped")
    page = report(store)
    assert "status done" in page.all("class") and "hardly erased" not in page.text
