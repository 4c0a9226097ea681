"""What is refused has sent nothing: asked of a server that would have seen it."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from recorder import ALSO_HERE, FAR, HERE, Recorder
from short_runs import COMMAND
from typer.testing import CliRunner

from advanchor.cli import app

pytestmark = pytest.mark.usefixtures("no_variables")


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def batch(tiny_base: Path, tmp_path: Path) -> str:
    from short_runs import write_batch

    return str(write_batch(tmp_path, tiny_base))


def settings(recorder: Recorder) -> dict[str, dict[str, Any]]:
    """Options and variables that would reach the recorder without a token, if they were let."""
    there, port = f"{ALSO_HERE}:{recorder.port}", recorder.port
    proxy, far, near = f"http://{HERE}:{port}", f"http://{FAR}:8265", f"http://{HERE}:{port}"
    return {
        "option": {"--address": f"http://{there}"},
        "variable": {"RAY_ADDRESS": f"http://{there}"},
        "server": {"RAY_API_SERVER_ADDRESS": f"http://{there}"},
        "variable over option": {"RAY_ADDRESS": f"http://{there}", "--address": near},
        "server over all": {"RAY_API_SERVER_ADDRESS": f"http://{there}", "RAY_ADDRESS": near, "--address": near},
        "auto": {"--address": "auto", "RAY_ADDRESS": f"http://{there}"},
        "userinfo": {"--address": f"http://localhost:x@{there}"},
        "cluster": {"--address": there},
        "cluster by variable": {"RAY_ADDRESS": there},
        "client": {"RAY_ADDRESS": f"ray://{there}"},
        "far by proxy": {"RAY_ADDRESS": far, "http_proxy": proxy},
        "far by PROXY": {"--address": far, "HTTP_PROXY": proxy},
        "far by ALL_PROXY": {"RAY_API_SERVER_ADDRESS": far, "ALL_PROXY": proxy},
        "near by proxy": {"--address": near, "http_proxy": proxy},
        "near by ALL_PROXY": {"--address": f"http://localhost:{port}", "all_proxy": proxy, "no_proxy": FAR},
        "token mode without a token": {"--address": f"http://{there}", "RAY_AUTH_MODE": "token"},
        "a token without its mode": {"--address": f"http://{there}", "RAY_AUTH_TOKEN": "secret"},
        "a token's mode disabled": {"--address": f"http://{there}", "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "x"},
        "a token's path to nothing": {
            "--address": f"http://{there}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere/token",
        },
    }  # fmt: skip


def applied(setting: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sets the variables; returns the options."""
    for name, value in setting.items():
        if not name.startswith("-"):
            monkeypatch.setenv(name, value)
    return [word for name, value in setting.items() if name.startswith("-") for word in (name, value)]


class Nowhere:
    port = 1


@pytest.mark.parametrize("name", settings(Nowhere()))  # type: ignore[arg-type] # names only
def test_submit_sends_nothing_where_it_is_refused(
    name: str, recorder: Recorder, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = invoke("submit", batch, *applied(settings(recorder)[name], monkeypatch))
    assert code == 2 and re.fullmatch(r"error: .+\n", output), output
    assert recorder.connections == 0


@pytest.mark.parametrize(
    "name", ["option", "variable over option", "server over all", "far by proxy", "far by ALL_PROXY", "near by proxy"]
)
@pytest.mark.parametrize("way", ["override", "token"])
def test_submit_sends_where_it_is_allowed(
    name: str, way: str, recorder: Recorder, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same combinations reach the recorder, so that its silence above means something; with the token, if any."""
    options = applied(settings(recorder)[name], monkeypatch)
    if way == "token":
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    code, output = invoke("submit", batch, *options, *(["--insecure-no-token"] if way == "override" else []))
    assert code == 0 and "submitted: made-up" in output, output
    assert any(line.startswith("POST") and "/api/jobs/" in line for line in recorder.requests)
    sent = {headers.get("authorization") for headers in recorder.headers}
    assert sent == ({"Bearer secret"} if way == "token" else {None})


def test_submit_needs_no_token_on_loopback_and_sends_no_password_of_netrc(
    recorder: Recorder, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = Path.home() / ".netrc"
    netrc.write_text(f"machine {HERE} login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", HERE)
    code, output = invoke("submit", batch, "--address", f"http://{HERE}:{recorder.port}")
    assert code == 0 and "submitted" in output
    assert not any("authorization" in map(str.lower, headers) for headers in recorder.headers)


def test_a_redirection_is_not_followed(recorder: Recorder, batch: str) -> None:
    other = Recorder()
    recorder.redirect = f"http://{ALSO_HERE}:{other.port}/api/version"
    code, output = invoke("submit", batch, "--address", f"http://{HERE}:{recorder.port}")
    assert code == 2 and recorder.redirect in output and output.count("\n") == 1
    assert recorder.connections == 1 and other.connections == 0
    other.close()


@pytest.mark.parametrize("command", ["erase", "resume"])
@pytest.mark.parametrize("name", ["cluster", "cluster by variable", "client", "auto"])
def test_a_driver_joins_nothing_where_it_is_refused(
    command: str, name: str, recorder: Recorder, batch: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = applied(settings(recorder)[name], monkeypatch)
    if command == "resume":
        with monkeypatch.context() as first:
            first.setenv("RAY_ADDRESS", "os://x")
            assert invoke("erase", batch)[0] == 2  # leaves a run directory
    code, output = invoke(command, batch if command == "erase" else str(tmp_path / "run"), *options)
    assert code == 2 and output.count("error: ") == 1, output
    assert recorder.connections == 0


@pytest.mark.parametrize("name", ["cluster", "cluster by variable", "client", "auto"])
def test_a_repair_is_refused_before_anything_is_fused(
    name: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = applied(settings(recorder)[name], monkeypatch)
    code, output = invoke("fuse", str(tmp_path / "no run"), "-o", str(tmp_path / "fused"), "--repair", *options)
    assert code == 2 and output.count("error: ") == 1 and "no run" not in output, output
    assert recorder.connections == 0
    code, output = invoke("fuse", str(tmp_path / "no run"), "-o", str(tmp_path / "fused"), *options)
    assert code == 2 and "no run" in output and recorder.connections == 0  # without it nothing is asked of a cluster


@pytest.mark.parametrize("options", [[], ["--address", "http://127.0.0.1:8265"]])
def test_a_far_cluster_named_by_a_variable_and_reached_by_a_proxy(
    options: list[str], recorder: Recorder, batch: str, tmp_path: Path
) -> None:
    """RAY_ADDRESS named a machine far away, a proxy carried the batch there, and no token was asked for."""
    variables = {"RAY_ADDRESS": f"http://{FAR}:8265", "http_proxy": f"http://{HERE}:{recorder.port}"}
    done = subprocess.run(
        [*COMMAND, "submit", batch, *options],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(rf"error: 'http://{FAR}:8265' \(from RAY_ADDRESS\) is on another machine, .+\n", done.stderr)
    assert recorder.connections == 0
