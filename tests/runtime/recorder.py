"""A server on loopback that writes down whatever reaches it: as a dashboard, as a proxy, or as a port that is tried."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ray

HERE = "127.0.0.1"
ALSO_HERE = "127.1"  # inet_aton's way to write it: what is sent there arrives here, but nothing says that it would
FAR = "203.0.113.9"  # for documentation; here it is only ever named, or asked for at a recorder that plays the proxy
OWN = "192.0.2.7"  # what this machine calls itself in these tests
PROXIES = [each for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for each in (name, name.upper())]
VARIABLES = [
    "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH",
    "RAY_grpc_enable_http_proxy", "grpc_proxy", *PROXIES,
]  # fmt: skip


class Recorder:
    """`requests`: the request lines. `connections`: how many there were, whatever was said."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.redirect = ""  # where every request is sent on to, if anywhere
        self.server = ThreadingHTTPServer((HERE, 0), self.handler())
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def handler(recorder) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (self is the handler's)
        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                recorder.connections += 1
                super().setup()

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                recorder.requests.append(self.requestline)
                recorder.headers.append(dict(self.headers))
                self.send_response(307 if recorder.redirect else 200)
                if recorder.redirect:
                    self.send_header("Location", recorder.redirect)
                    self.end_headers()
                    return
                self.end_headers()
                self.wfile.write(json.dumps(self.content()).encode())

            def content(self) -> object:
                if "/api/jobs" in self.path:
                    return {"job_id": "made-up", "submission_id": "made-up"} if self.command == "POST" else []
                return {"ray_version": ray.__version__, "version": "4", "ray_commit": ""}

            do_GET = do_POST = do_PUT = do_CONNECT = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
