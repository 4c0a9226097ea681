"""Which cluster a command would reach."""

import ast
import itertools
import os
from pathlib import Path

import pytest
import requests
from ray.dashboard.utils import get_address_for_submission_client
from recorder import ALSO_HERE, FAR, HERE, OWN
from requests.utils import select_proxy

import advanchor
from advanchor.runtime.addresses import (
    FOUND,
    Target,
    cluster_target,
    http_target,
    is_loopback,
    jobs_target,
    refuse_without_token,
    requests_proxy,
)
from advanchor.runtime.errors import ClusterError

pytestmark = pytest.mark.usefixtures("no_variables")

found = f"{OWN}:6379".__str__
PLACES = (None, "", "auto", "local", f"{FAR}:6379", "127.0.0.1:6379", f"ray://{FAR}:10001", f"http://{FAR}:8265")


def what_ray_init_takes(option: str | None, variable: str | None) -> str:
    """The first lines of ray.init, and of connected: an option of nothing is none."""
    address = option or variable or "local"
    return variable if address == "auto" and variable else address


@pytest.mark.parametrize(("option", "variable"), itertools.product(PLACES, PLACES))
def test_a_command_joins_what_ray_init_would(option: str | None, variable: str | None) -> None:
    environment = {} if variable is None else {"RAY_ADDRESS": variable}
    taken = what_ray_init_takes(option, variable)
    if taken.startswith("http"):
        with pytest.raises(ClusterError, match="submit"):
            cluster_target(option, environment, found, {OWN})
        return
    target = cluster_target(option, environment, found, {OWN})
    assert target.address == (found() if taken == "auto" else taken)
    assert target.here is (FAR not in taken)
    if FAR in taken:
        assert target.source == ("--address" if taken == option else "RAY_ADDRESS")


DASHBOARDS = (None, "", f"http://{FAR}:8265", "http://127.0.0.1:8265", f"https://{FAR}")


@pytest.mark.parametrize(("option", "variable", "server"), itertools.product(DASHBOARDS, repeat=3))
def test_submit_goes_where_rays_job_client_would(
    option: str | None, variable: str | None, server: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against Ray's own function."""
    for name, value in {"RAY_ADDRESS": variable, "RAY_API_SERVER_ADDRESS": server}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    target = jobs_target(option, os.environ, found, {OWN}, requests_proxy)
    if not (option or variable or server):
        assert (target.address, target.source) == (found(), FOUND)  # Ray looks for a process
        return
    assert target.address == get_address_for_submission_client(option).rstrip("/")
    assert target.here is ("127.0.0.1" in target.address) and target.is_dashboard
    assert target.source == ("RAY_API_SERVER_ADDRESS" if server else "RAY_ADDRESS" if variable else "--address")


@pytest.mark.parametrize("at", ["option", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
@pytest.mark.parametrize(
    "address", ["auto", f"{FAR}:6379", "127.0.0.2:6379", f"ray://{FAR}:10001", "ray://[::1]:10001"]
)
def test_submit_asks_a_cluster_for_its_dashboard(at: str, address: str) -> None:
    environment = {"RAY_ADDRESS": f"{FAR}:1"} if at == "RAY_API_SERVER_ADDRESS" else {}
    environment |= {} if at == "option" else {at: address}
    target = jobs_target(address if at == "option" else f"{FAR}:2", environment, found, {OWN}, requests_proxy)
    assert target.address == (found() if address == "auto" else address)
    assert target.here is (FAR not in address) and not target.is_dashboard


NAMED = ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
PROXY_ROWS = [
    {name: proxy, exempt: hosts}
    for name in NAMED
    for proxy in ("http://127.0.0.1:9", "proxy.example:3128")
    for exempt in ("no_proxy", "NO_PROXY")
    for hosts in ("", "*", "127.0.0.1", f"x, {FAR}", "localhost,127.0.0.0/8")
]


@pytest.mark.parametrize("host", [HERE, "localhost", FAR])
@pytest.mark.parametrize("variables", PROXY_ROWS, ids=lambda row: ",".join(f"{k}={v}" for k, v in row.items()))
def test_a_proxy_counts_where_requests_would_take_it(
    variables: dict[str, str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against a session of `requests`; a proxy is never this machine, wherever it listens."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    url = f"http://{host}:8265"
    settings = requests.Session().merge_environment_settings(url, {}, False, None, None)
    expected = select_proxy(url, settings["proxies"])
    target = jobs_target(url, {}, found, (), requests_proxy)
    assert target.proxy == (expected or "")
    assert target.stays is (host != FAR and not expected)


def test_ray_takes_a_proxy_only_where_it_is_let() -> None:
    environment = {"http_proxy": "http://127.0.0.1:9"}
    assert cluster_target("127.0.0.1:6379", environment, found, ()).stays
    for word in ("1", "true"):
        let = environment | {"RAY_grpc_enable_http_proxy": word}
        assert not cluster_target("127.0.0.1:6379", let, found, ()).stays


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True), ("127.9.8.7", True), ("::1", True), ("localhost", True), ("LocalHost", True),
        (FAR, False), (OWN, False), ("0.0.0.0", False), ("::", False), (ALSO_HERE, False), ("2130706433", False),
        ("0x7f.1", False), ("localhost.example", False), ("127.0.0.1.example", False), ("", False), ("auto", False),
    ],
)  # fmt: skip
def test_only_loopback_numbers_and_localhost_are_here(host: str, here: bool) -> None:
    assert is_loopback(host) is here


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (f"http://localhost:x@{FAR}", "user or a password"), (f"http://127.0.0.1:8265@{FAR}:1/", "user or a password"),
        (rf"http://127.0.0.1\@{FAR}/", "user or a password"), ("http://", "not a dashboard"),
        ("http://[::1", "not a dashboard"), ("127.0.0.1", "with a port"), ("[::1]", "with a port"),
        ("::1", "with a port"), ("localhost:", "with a port"), ("localhost:70000", "with a port"),
        (f"localhost:x@{FAR}:6379", "with a port"), (f"ray://127.0.0.1:1@{FAR}:1", "with a port"),
        (f"ray://ipv4:{FAR}:1", "with a port"), ("ray://localhost", "with a port"), ("127.0.0.1:6379/x", "with a port"),
        ("os://127.0.0.1:1", "not a cluster"), (f"HTTP://{FAR}:1", "not a cluster"), ("\x1b]0;x\x07", "with a port"),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(address: str, why: str) -> None:
    """In one line that shows neither a password nor control characters."""
    with pytest.raises(ClusterError, match=why) as error:
        jobs_target(address, {}, found, (), requests_proxy)
    assert str(error.value).isprintable() and ":x@" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://127.0.0.1", HERE), ("http://[::1]:8265/x/", "::1"), ("http://localhost:1?a", "localhost")],
)
def test_a_dashboard_needs_no_port(url: str, host: str) -> None:
    target = http_target(url, "--address", requests_proxy)
    assert target.host == host and target.stays


@pytest.mark.parametrize("mode", ["", "disabled", "token", "TOKEN"])
@pytest.mark.parametrize("has_token", [False, True])
@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(("here", "proxy"), [(True, ""), (True, "http://127.0.0.1:9"), (False, ""), (False, "p:1")])
def test_off_this_machine_only_with_a_token(mode: str, has_token: bool, allow: bool, here: bool, proxy: str) -> None:
    target = Target("http://a:1", "RAY_ADDRESS", "a", proxy, here)
    may = (here and not proxy) or allow or (mode.lower() == "token" and has_token)
    try:
        refuse_without_token(target, mode=mode, has_token=has_token, allow_without_token=allow)
        refused = ""
    except ClusterError as error:
        refused = str(error)
    assert bool(refused) is not may
    if refused:
        assert "'http://a:1' (from RAY_ADDRESS)" in refused and "\n" not in refused
        assert ("proxy" in refused) is here and ("there is no token" in refused) is (mode.lower() == "token")


def test_no_other_file_reaches_a_cluster() -> None:
    """All commands go through the two that check."""
    root = Path(advanchor.__file__).parent
    reaching = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if name in ("ray.init", "ray.client", "JobSubmissionClient") or "JobSubmissionClient" in bases:
                reaching.add(path.name)
    assert reaching == {"ray_cluster.py", "jobs.py"}
