"""The review's server, asked as browsers and others would ask it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from patience import PATIENCE_S
from published import GRID, entry, publish, scores, task, write_status

from advanchor.report.review import MAX_BODY, Review, serve
from advanchor.rundir.store import Store
from advanchor.rundir.verdicts import give, verdicts

STRIPED, DOTTED = task("striped"), task("<b>dotted</b>")
Asked = Callable[[aiohttp.ClientSession, str], Coroutine[Any, Any, None]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    publish(store, STRIPED, scores(0.9))
    publish(store, DOTTED, scores(0.2))
    write_status(store, entry(STRIPED), entry(DOTTED))
    return store


def reviewed(store: Store, ask: Asked) -> None:
    """Let `ask` talk to a review of the run, given its address."""

    async def run() -> None:
        started = asyncio.get_running_loop().create_future()
        server = asyncio.create_task(serve(Review(store, "mira"), 0, started.set_result))
        async with aiohttp.ClientSession() as session:
            await asyncio.wait([started, server], return_when=asyncio.FIRST_COMPLETED)
            await ask(session, started.result())
        server.cancel()

    asyncio.run(run())


def given(store: Store) -> dict[str, tuple[str, str, str]]:
    found = verdicts(store, store.results())
    return {task: (one.verdict, one.note, one.by) for task, one in found.items()}


def origin(address: str) -> str:
    return "/".join(address.split("/")[:3])


async def post(session: aiohttp.ClientSession, address: str, told: Any, **headers: str) -> tuple[int, str]:
    headers = {"Origin": origin(address), "Content-Type": "application/json"} | headers
    async with session.post(f"{address}verdicts", data=json.dumps(told), headers=headers) as answer:
        return answer.status, await answer.text()


async def status(session: aiohttp.ClientSession, url: str, method: str = "GET", **headers: str) -> int:
    async with session.request(method, url, headers=headers, allow_redirects=False) as answer:
        assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"
        return answer.status


def test_the_page_its_pictures_and_a_verdict(store: Store) -> None:
    async def ask(session: aiohttp.ClientSession, address: str) -> None:
        async with session.get(address) as answer:
            page = await answer.text()
            assert answer.status == 200 and "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert f'src="pictures/{STRIPED.id}/erased.png"' in page and 'data-verdict="accept"' in page
        assert "&lt;b&gt;dotted&lt;/b&gt;" in page and "<b>dotted" not in page
        assert "../tasks" not in page  # its files are not served
        async with session.get(f"{address}pictures/{STRIPED.id}/erased.png") as answer:
            assert await answer.read() == GRID and answer.content_type == "image/png"
        assert await post(session, address, {"task": STRIPED.id, "verdict": "reject", "note": "a stripe"}) == (
            200, '{"verdict": "reject", "note": "a stripe"}',
        )  # fmt: skip
        assert (await post(session, address, {"task": DOTTED.id, "verdict": "accept"}))[0] == 200

    reviewed(store, ask)
    assert given(store) == {STRIPED.id: ("reject", "a stripe", "mira"), DOTTED.id: ("accept", "", "mira")}


def test_a_verdict_can_be_taken_back(store: Store) -> None:
    give(store, store.results()[0], "accept")

    async def ask(session: aiohttp.ClientSession, address: str) -> None:
        await status(session, address)
        for one in (STRIPED, DOTTED):
            assert (await post(session, address, {"task": one.id, "verdict": None}))[0] == 200

    reviewed(store, ask)
    assert given(store) == {}


def test_nothing_without_the_secret(store: Store) -> None:
    async def ask(session: aiohttp.ClientSession, address: str) -> None:
        await status(session, address)
        root, secret = origin(address), address.split("/")[3]
        assert len(secret) >= 43  # 256 bits
        for wrong in ("", "x/", f"{secret[:-1]}/", f"{secret}x/", f"{secret.swapcase()}/", "%00/", "\u00e9/"):
            assert await status(session, f"{root}/{wrong}") == 404
            assert await status(session, f"{root}/{wrong}pictures/{STRIPED.id}/erased.png") == 404
            told = {"task": STRIPED.id, "verdict": "accept"}
            assert (await post(session, f"{root}/{wrong}", told))[0] in (404, 405)

    reviewed(store, ask)
    assert given(store) == {}


def test_no_other_page_can_ask(store: Store) -> None:
    """Neither by another name for this machine (DNS rebinding) nor from another origin (CSRF)."""

    async def ask(session: aiohttp.ClientSession, address: str) -> None:
        await status(session, address)
        told, own = {"task": STRIPED.id, "verdict": "accept"}, origin(address).removeprefix("http://")
        port = own.partition(":")[2]
        evil = "evil.example"
        for host in (evil, f"{evil}:{port}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.{evil}:{port}"):
            assert await status(session, address, Host=host) == 404
            assert (await post(session, address, told, Host=host, Origin=f"http://{host}"))[0] == 404
        for other in (f"http://{evil}", "null", "", f"https://{own}", "http://127.0.0.1:1", f"http://{own}.{evil}"):
            assert (await post(session, address, told, Origin=other))[0] == 404
        assert await status(session, f"{address}verdicts", "POST") == 404  # no origin at all
        assert await status(session, address, **{"Sec-Fetch-Site": "cross-site"}) == 404
        for kind in ("text/plain", "application/x-www-form-urlencoded"):  # what forms can send
            assert (await post(session, address, told, **{"Content-Type": kind}))[0] == 415

    reviewed(store, ask)
    assert given(store) == {}


def test_no_other_path_is_served(store: Store) -> None:
    store.write("secret.png", GRID)

    async def ask(session: aiohttp.ClientSession, address: str) -> None:
        await status(session, address)
        folder = f"{address}pictures/{STRIPED.id}"
        for url in (
            f"{address}secret.png", f"{address}batch.yaml", f"{address}../batch.yaml",
            f"{address}pictures/x/erased.png",
            f"{folder}/delta.png", f"{folder}/erased.safetensors", f"{folder}/..%2f..%2f..%2fsecret.png",
            f"{address}pictures/..%2f../secret.png", f"{folder}/erased.png/", address.rstrip("/"),
        ):  # fmt: skip
            assert await status(session, url) == 404, url
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            assert await status(session, address, method) in (404, 405)

    reviewed(store, ask)


def test_a_damaged_picture_is_not_served(store: Store) -> None:
    files = store.results()[0]["files"] if store.results()[0]["task"] == STRIPED.id else store.results()[1]["files"]
    store.write(store.task_path(STRIPED, files["erased"]["name"]), GRID[:-1])

    async def ask(session: aiohttp.ClientSession, address: str) -> None:
        await status(session, address)
        assert await status(session, f"{address}pictures/{STRIPED.id}/erased.png") == 404
        assert await status(session, f"{address}pictures/{STRIPED.id}/retained.png") == 200

    reviewed(store, ask)


def test_what_is_no_verdict_is_refused_in_a_few_words(store: Store) -> None:
    bad: list[Any] = [
        None, [], "accept", {}, {"task": STRIPED.id},
        {"task": "../x", "verdict": "accept"}, {"task": [], "verdict": "accept"},
        {"task": STRIPED.id, "verdict": "fine"}, {"task": STRIPED.id, "verdict": "reject"},
        {"task": STRIPED.id, "verdict": {}},
        {"task": STRIPED.id, "verdict": "accept", "note": "x" * 2001},
    ]  # fmt: skip

    async def ask(session: aiohttp.ClientSession, address: str) -> None:
        await status(session, address)
        for told in bad:
            code, why = await post(session, address, told)
            assert code == 400 and 0 < len(why) < 200 and "\n" not in why, told
        long = {"task": STRIPED.id, "verdict": "accept", "note": "x" * MAX_BODY}
        assert (await post(session, address, long))[0] == 413
        headers = {"Origin": origin(address), "Content-Type": "application/json"}
        for data in (b"", b"{", b"[" * 5000, b"\xff"):
            async with session.post(f"{address}verdicts", data=data, headers=headers) as answer:
                assert answer.status == 400

    reviewed(store, ask)
    assert given(store) == {}


def test_the_command_says_where_and_how_many(store: Store) -> None:
    command = [sys.executable, "-P", "-m", "advanchor.cli", "review", store.url, "--by", "mira"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, **pipes) as process:
        assert process.stdout
        address = process.stdout.readline().removeprefix("review: ").strip()

        async def ask() -> None:
            async with aiohttp.ClientSession() as session:
                assert address.startswith("http://127.0.0.1:") and await status(session, address) == 200
                assert (await post(session, address, {"task": STRIPED.id, "verdict": "accept"}))[0] == 200

        try:
            asyncio.run(ask())
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0 and "verdicts given: 1" in output and not errors, errors
    assert given(store) == {STRIPED.id: ("accept", "", "mira")}
