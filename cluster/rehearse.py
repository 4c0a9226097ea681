"""A Ray cluster of several nodes on one Linux machine, to rehearse on before real machines cost money.

    eval "$(python cluster/rehearse.py up --nodes 2)"    # sets RAY_ADDRESS, RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH
    advanchor erase configs/gallery.yaml
    python cluster/rehearse.py down

Every node is a `ray start --block` with a loopback address of its own: 127.0.0.2 is the head, then 127.0.0.3, ...
Kill a node's process (`kill -9`, the pids are printed) to rehearse a lost machine. --gpus pretends: Ray hands out that
many GPUs per node, the work is done on the CPU. Ray's ports listen on all of the machine's interfaces, so a token is
always on; it and all logs are gone after `down`.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

FOLDER = Path(tempfile.gettempdir()) / f"advanchor-rehearsal-{os.getuid()}"
TOKEN, STATE = FOLDER / "token", FOLDER / "nodes.json"
START_S = 600.0  # patience for a node to start; one that dies is seen at once
STOP_S = 15.0  # patience for one to stop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start the cluster and print what a shell needs to use it")
    starting.add_argument("--nodes", type=int, default=2, help="nodes besides the head (default 2)")
    starting.add_argument("--cpus", type=int, default=1, help="CPUs that each node offers (default 1)")
    starting.add_argument("--gpus", type=int, default=0, help="GPUs that each node pretends to have (default 0)")
    starting.add_argument("--port", type=int, default=6380, help="the head's port (default 6380)")
    starting.add_argument("--object-store-mb", type=int, default=100, help="object store of each node (default 100)")
    starting.add_argument("--dashboard", action="store_true", help="show Ray's dashboard on http://127.0.0.1:8265")
    commands.add_parser("down", help="stop the cluster and remove its token and logs")
    options = parser.parse_args()
    up(options) if options.command == "up" else down()


def up(options: argparse.Namespace) -> None:
    try:
        FOLDER.mkdir(mode=0o700)
    except FileExistsError:
        sys.exit(f"{FOLDER} is there already: a rehearsal is on; end it with `{sys.argv[0]} down`")
    TOKEN.touch(mode=0o600)
    TOKEN.write_text(secrets.token_hex(32))
    address = f"127.0.0.2:{options.port}"
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(TOKEN), "RAY_ADDRESS": address}
    os.environ.update(access)
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would win over the file
    try:
        start_cluster(address, options)
    except BaseException:
        for log in sorted(FOLDER.glob("*.log")):
            print(f"--- {log.name}", log.read_text()[-2000:], sep="\n", file=sys.stderr)
        down()
        raise
    for node in read_nodes():
        print(f"# {node['name']}: {node['ip']}, pid {node['pid']}", file=sys.stderr)
    print(*(f"export {name}={value}" for name, value in access.items()), sep="\n")


def start_cluster(address: str, options: argparse.Namespace) -> None:
    """One node after the other: Ray gives each 30 s to start, which is short for many at once on a few cores."""
    import ray

    dashboard = [f"--include-dashboard={options.dashboard}", "--dashboard-host=127.0.0.1"]
    head = ["--head", f"--port={options.port}", "--num-cpus=0", "--num-gpus=0", *dashboard]
    start_node("head", "127.0.0.2", head, options)
    wait_for_port(options.port)
    connect(address)
    try:
        for i in range(1, options.nodes + 1):
            offers = [f"--address={address}", f"--num-cpus={options.cpus}", f"--num-gpus={options.gpus}"]
            start_node(f"node {i}", f"127.0.0.{i + 2}", offers, options)
            deadline = time.time() + START_S
            while sum(node["Alive"] for node in ray.nodes()) <= i:
                if time.time() > deadline or len(living()) <= i:
                    raise RuntimeError(f"node {i} did not join")
                time.sleep(0.2)
    finally:
        ray.shutdown()


def connect(address: str) -> None:
    """Join as a driver; the head answers on its port a little before it knows itself as a node."""
    import ray

    deadline = time.time() + START_S
    while True:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        except (ConnectionError, RuntimeError):
            if time.time() > deadline or not living():
                raise
            time.sleep(0.2)


def start_node(name: str, ip: str, arguments: list[str], options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--log-color=false", *arguments]
    command += [f"--node-ip-address={ip}", f"--temp-dir={FOLDER / 'ray'}"]
    command += [f"--object-store-memory={options.object_store_mb * 2**20}"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS")
    with (FOLDER / f"{name.replace(' ', '-')}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    started = psutil.Process(process.pid).create_time()
    STATE.write_text(json.dumps([*read_nodes(), {"name": name, "ip": ip, "pid": process.pid, "started": started}]))


def read_nodes() -> list[dict]:
    return json.loads(STATE.read_text()) if STATE.exists() else []


def living() -> list[psutil.Process]:
    """The nodes' processes that still run, the head last; a pid that now belongs to another process is left out."""
    found = []
    for node in reversed(read_nodes()):
        try:
            process = psutil.Process(node["pid"])
            if process.create_time() == node["started"] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for_port(port: int) -> None:
    deadline = time.time() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.2", port), timeout=1).close()
            return
        except OSError:
            if time.time() > deadline or not living():
                raise
            time.sleep(0.2)


def down() -> None:
    processes = living()
    for process in processes:
        process.send_signal(signal.SIGTERM)
    _, stubborn = psutil.wait_procs(processes, timeout=STOP_S)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=STOP_S)
    shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
