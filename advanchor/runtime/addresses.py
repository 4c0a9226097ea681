"""Which cluster a command would reach, decided before anything is sent; what is decided is what is then reached.

The rules are those of Ray 2.60: `ray.init` (ray/_private/worker.py, services.canonicalize_bootstrap_address) and its
job client (ray/dashboard/utils.py, get_address_for_submission_client), which talks HTTP with `requests`. No name is
looked up here, for it could mean another machine a moment later: only `localhost` and loopback numbers are this one.
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy

from advanchor.runtime.errors import ClusterError

FOUND = "the Ray that runs on this machine"  # the source of what "auto" means
LOCAL = "local"  # Ray's word for a cluster of this command's own
HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})", re.ASCII)
USERINFO = re.compile(r"(?<=//)[^/?#]*@|^[^/?#]*@")
GRPC_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # gRPC reads no capitals


@dataclass(frozen=True)
class Target:
    """A cluster, and the way to it."""

    address: str  # for Ray: LOCAL, host:port, ray://host:port or http(s)://host:port
    source: str = ""  # what named it: an option or a variable; empty for LOCAL
    host: str = ""
    proxy: str = ""  # in between
    here: bool = False  # the address is this machine's

    @property
    def is_local(self) -> bool:
        return self.address == LOCAL

    @property
    def is_dashboard(self) -> bool:
        return self.address.startswith(("http://", "https://"))

    @property
    def proxies(self) -> dict[str, str]:
        """For `requests`."""
        return {urlsplit(self.address).scheme: self.proxy} if self.proxy else {}

    @property
    def stays(self) -> bool:
        """Whether nothing that is sent leaves this machine."""
        return self.here and not self.proxy


Find = Callable[[], str]  # the host:port of a Ray that runs on this machine. Raises ClusterError
FindProxy = Callable[[str], str]  # a URL -> the proxy that `requests` would take, or ""


def cluster_target(option: str | None, environment: Mapping[str, str], find: Find, own: Collection[str]) -> Target:
    """Where ray.init goes. `own`: this machine's addresses, for one that Ray found by itself. Raises ClusterError."""
    address, source = option or environment.get("RAY_ADDRESS", ""), "--address" if option else "RAY_ADDRESS"
    if address == "auto" and environment.get("RAY_ADDRESS"):
        address, source = environment["RAY_ADDRESS"], "RAY_ADDRESS"
    if not address or address == LOCAL:
        return Target(LOCAL, here=True)
    return ray_target(address, source, environment, find, own)


def jobs_target(
    option: str | None, environment: Mapping[str, str], find: Find, own: Collection[str], find_proxy: FindProxy
) -> Target:
    """Where Ray's job client goes first; unless that is http(s), the cluster there says where its dashboard is."""
    variables = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # they win over the option, in this order
    named = [(environment[name], name) for name in variables if environment.get(name)]
    address, source = [*named, (option or "", "--address")][0]
    if address.startswith(("http://", "https://")):
        return http_target(address, source, find_proxy)
    if address in ("", LOCAL):
        address = "auto"
    return ray_target(address, source, environment, find, own)


def ray_target(
    address: str, source: str, environment: Mapping[str, str], find: Find, own: Collection[str] = ()
) -> Target:
    if address == "auto":
        host, port = host_and_port(find(), FOUND)
        return Target(joined(host, port), FOUND, host, grpc_proxy(environment), is_loopback(host) or host in own)
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "ray"):
        raise ClusterError(
            f"{shown(address)} (from {source}) is not a cluster to join: give host:port, ray://host:port or auto; "
            "http://host:8265 is for `advanchor submit` only"
        )
    host, port = host_and_port(rest, source)
    prefix = "ray://" if scheme else ""
    return Target(prefix + joined(host, port), source, host, grpc_proxy(environment), is_loopback(host))


def http_target(url: str, source: str, find_proxy: FindProxy, own: Collection[str] = ()) -> Target:
    """A dashboard. The host is read from the URL that `requests` makes of it, as its adapter does."""
    if "@" in url:
        raise ClusterError(
            f"{shown(url)} (from {source}) has a user or a password in it, which would be sent in the token's place: "
            "give http://host:port"
        )
    try:
        prepared = requests.Request("GET", url).prepare().url or ""
        host = urlsplit(prepared).hostname or ""
    except (requests.RequestException, ValueError) as error:
        raise ClusterError(f"{shown(url)} (from {source}) is not a dashboard's address: {error}") from error
    return Target(prepared.rstrip("/"), source, host, find_proxy(prepared), is_loopback(host) or host in own)


def refuse_without_token(target: Target, *, mode: str, has_token: bool, allow_without_token: bool) -> None:
    """Raises ClusterError for a target that is not on this machine without RAY_AUTH_MODE=token and a token.

    mode: what RAY_AUTH_MODE says. has_token: whether Ray has found a token, wherever it may lie.
    """
    if target.stays or allow_without_token or (mode.lower() == "token" and has_token):
        return
    missing = "there is no token" if mode.lower() == "token" else "RAY_AUTH_MODE is not 'token'"
    where = f"is reached through the proxy {shown(target.proxy)}" if target.here else "is on another machine"
    cure = f"Add {target.host} to NO_PROXY, or set" if target.here else "Set"
    raise ClusterError(
        f"{shown(target.address)} (from {target.source}) {where}, and {missing}: whoever reaches that cluster could "
        f"run code on it. {cure} RAY_AUTH_MODE=token, with the cluster's token in RAY_AUTH_TOKEN or in "
        "~/.ray/auth_token, or pass --insecure-no-token if the network is really closed"
    )


def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1 and localhost; no other name, and no other way of writing a number."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(address: str, source: str) -> tuple[str, str]:
    match = HOST_AND_PORT.fullmatch(address)
    if not match or int(match[3]) > 65535:
        raise ClusterError(
            f"{shown(address)} (from {source}) is not an address with a port, like 10.0.0.5:6379 or [::1]:6379"
        )
    return match[1] or match[2], match[3]


def joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def requests_proxy(url: str) -> str:
    """`requests`' own answer from this process's environment: HTTP_PROXY, ALL_PROXY, NO_PROXY, in small letters too."""
    return select_proxy(url, get_environ_proxies(url)) or ""


def grpc_proxy(environment: Mapping[str, str]) -> str:
    """gRPC takes a proxy only where Ray lets it; what NO_PROXY exempts is not looked at, to be on the safe side."""
    if environment.get("RAY_grpc_enable_http_proxy", "").lower() not in ("1", "true"):
        return ""
    return next((environment[name] for name in GRPC_PROXIES if environment.get(name)), "")


def shown(address: str) -> str:
    """For a message: no password, no control characters, not a whole page."""
    text = USERINFO.sub("***@", address)
    return repr(text if len(text) <= 100 else text[:97] + "...")
