"""`advanchor review`: the report on loopback, with buttons that write verdicts into the run directory.

Only who knows the secret in the address is answered. Other pages in the same browser cannot ask: Origin, Host and
content type are checked. Nothing is served but the page and the pictures that results name.
"""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from advanchor.report.html import page_of
from advanchor.report.pictures import checked
from advanchor.rundir.records import folder_of
from advanchor.rundir.storage import StoreError, parse
from advanchor.rundir.store import Store
from advanchor.rundir.verdicts import give, take_back

HOST = "127.0.0.1"
MAX_BODY = 32_768  # bytes of a verdict
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page itself says the rest
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Review:
    """One run under review. `given` counts the verdicts."""

    def __init__(self, store: Store, by: str) -> None:
        self.store, self.by, self.given = store, by, 0
        self.secret = secrets.token_urlsafe(32)
        self.results: dict[str, Mapping[str, Any]] = {}
        self.lock = asyncio.Lock()  # verdicts are written one after another

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.guard], client_max_size=MAX_BODY)
        app.router.add_get("/{secret}/", self.page)
        app.router.add_get("/{secret}/pictures/{task}/{stem}.png", self.picture)
        app.router.add_post("/{secret}/verdicts", self.verdict)
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """404 for everybody who does not know the secret, or comes by another name; headers for all."""
        secret = request.match_info.get("secret", "")
        known = hmac.compare_digest(secret.encode(errors="replace"), self.secret.encode())
        try:
            response = await handler(request) if known and is_ours(request) else refused(404, "not found")
        except web.HTTPException as error:
            response = refused(error.status, error.reason.lower())
        except StoreError as error:
            response = refused(500, str(error))
        response.headers.update(HEADERS)
        return response

    async def page(self, _: web.Request) -> web.Response:
        body = await asyncio.to_thread(self.render)
        return web.Response(body=body, content_type="text/html", charset="utf-8")

    def render(self) -> bytes:
        results = self.store.results()
        self.results = {result["task"]: result for result in results}
        return page_of(self.store, results, self.address, review=True)

    def address(self, folder: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Where this server has a picture; it is compared with its sha256 when it is asked for."""
        stem, task = entry["name"].partition("-")[0], folder.rpartition("-")[2]
        return {"src": f"pictures/{task}/{stem}.png", "size": None}

    async def picture(self, request: web.Request) -> web.Response:
        result = self.results.get(request.match_info["task"])
        entry = (result or {}).get("files", {}).get(request.match_info["stem"])
        if result is None or entry is None or not entry["name"].endswith(".png"):
            raise web.HTTPNotFound
        data = await asyncio.to_thread(checked, self.store, folder_of(result), entry)
        if data is None:
            raise web.HTTPNotFound
        return web.Response(body=data, content_type="image/png")

    async def verdict(self, request: web.Request) -> web.Response:
        """Keep one: {"task", "verdict", "note"}; a verdict of null takes it back. 400 for what is none."""
        if request.content_type != "application/json":
            return refused(415, "a verdict is JSON")
        try:
            told = parse(await request.read())
            result = self.results[told["task"]]
            kept = await self.keep(result, told["verdict"], told.get("note", ""))
        except (AttributeError, KeyError, TypeError):
            return refused(400, "a verdict names a finished task, and accept, again or reject")
        except ValueError as error:
            return refused(400, str(error))
        return web.json_response(kept)

    async def keep(self, result: Mapping[str, Any], verdict: Any, note: Any) -> dict[str, Any]:
        """Raises ValueError."""
        async with self.lock:
            self.given += 1
            if verdict is None:
                await asyncio.to_thread(take_back, self.store, result["task"])
                return {"verdict": None, "note": ""}
            given = await asyncio.to_thread(give, self.store, result, verdict, str(note), self.by)
            return {"verdict": given.verdict, "note": given.note}


def is_ours(request: web.Request) -> bool:
    """Whether it was sent to this address by name, and by no page of another origin."""
    port = ((request.transport and request.transport.get_extra_info("sockname")) or (HOST, 0))[1]
    hosts = {f"{HOST}:{port}", f"localhost:{port}"}
    origin = request.headers.get("Origin")
    if request.headers.get("Host") not in hosts or request.headers.get("Sec-Fetch-Site") == "cross-site":
        return False
    return origin in {f"http://{host}" for host in hosts} if request.method == "POST" else True


def refused(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=why)


async def serve(review: Review, port: int, started: Callable[[str], None]) -> None:
    """Until cancelled. `started` is told the address, secret and all. Raises OSError for a port that is taken."""
    runner = web.AppRunner(review.app(), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        actual = runner.addresses[0][1]
        started(f"http://{HOST}:{actual}/{review.secret}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
