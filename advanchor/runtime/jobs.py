"""Runs as Ray Jobs: the driver works on the cluster, and whoever submitted it may go home."""

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from ray._private.authentication.http_token_authentication import format_authentication_http_error
from ray.dashboard.utils import ray_address_to_api_server_url, ray_client_address_to_api_server_url
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobStatus, JobSubmissionClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from advanchor.batch.plan import content_hash, slug
from advanchor.runtime.addresses import Target, http_target, jobs_target, requests_proxy
from advanchor.runtime.errors import ClusterError
from advanchor.runtime.ray_cluster import check, find_ray, first_line, joining, own_addresses
from advanchor.runtime.tokens import environment, read_again

COMMAND = ("python", "-P", "-m", "advanchor.cli", "erase")  # -P: nothing is imported from the folder it runs in
POLL_S = 1.0
PATIENCE_S = 60.0  # with a cluster that has only just started


@dataclass(frozen=True)
class Submission:
    id: str
    status: str
    is_new: bool


def job_name(output: str) -> str:
    """The same for the same run directory, whoever submits it."""
    return f"advanchor-{slug(output.rstrip('/').rpartition('/')[2])}-{content_hash(output)[:8]}"


def is_starting(error: BaseException) -> bool:
    """Whether the cluster says that the part of it that takes jobs is not there yet."""
    return isinstance(error, RuntimeError) and "No available agent" in str(error)


@contextlib.contextmanager
def cluster_errors(what: str) -> Iterator[None]:
    """What Ray and requests raise becomes one line."""
    try:
        yield
    except ClusterError:
        raise
    except (OSError, RuntimeError, ValueError, RayError, KeyError, TypeError) as error:
        # requests' errors are OSErrors; the last two are what Ray makes of an answer that it does not understand
        raise ClusterError(f"{what}: {first_line(error)}") from error


patiently = Retrying(
    retry=retry_if_exception(is_starting), stop=stop_after_delay(PATIENCE_S), wait=wait_fixed(POLL_S), reraise=True
)


class Client(JobSubmissionClient):
    """Ray's, which asks the dashboard that it was made for and nobody else.

    Ray's own takes another address from the environment, and `requests` follows redirections and takes proxies and
    passwords (~/.netrc) of the environment, with each request anew.
    """

    def __init__(self, target: Target) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.proxies = dict(target.proxies)
        self.session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        with environment(RAY_API_SERVER_ADDRESS=target.address, RAY_ADDRESS=None):
            super().__init__(target.address)

    def _do_request(
        self, method: str, endpoint: str, *, data: bytes | None = None, json_data: dict | None = None, **kwargs: Any
    ) -> requests.Response:
        url, settled = self._address + endpoint, {"headers": self._headers, "allow_redirects": False}
        response = self.session.request(method, url, data=data, json=json_data, **settled, **kwargs)
        if response.is_redirect:
            raise ConnectionError(f"{self._address} sends requests on to {response.headers['location']!r}: give that")
        if refusal := format_authentication_http_error(response.status_code, response.text):
            raise AuthenticationError(refusal)
        return response


def dashboard(target: Target, *, allow_without_token: bool) -> Target:
    """Where the cluster says that its dashboard is, which is as much to be checked as what the user says."""
    is_client = target.address.startswith("ray://")
    with joining(target):
        url = (ray_client_address_to_api_server_url if is_client else ray_address_to_api_server_url)(target.address)
    told = http_target(url, f"what {target.address} says", requests_proxy, own_addresses() if target.here else ())
    check(told, allow_without_token=allow_without_token)
    return told


class Jobs:
    def __init__(self, address: str | None, *, allow_without_token: bool) -> None:
        """`address`: the cluster's, or its dashboard's (http://host:8265). Raises ClusterError.

        As for all of Ray's job commands, RAY_API_SERVER_ADDRESS and then RAY_ADDRESS win over `address`.
        """
        read_again()
        target = jobs_target(address, os.environ, lambda: find_ray(None), own_addresses(), requests_proxy)
        check(target, allow_without_token=allow_without_token)
        with cluster_errors(f"no cluster that takes jobs at {target.address}"):
            if not target.is_dashboard:
                target = dashboard(target, allow_without_token=allow_without_token)
            self.client = Client(target)

    def submit(self, batch: Path, carried: Sequence[Path], output: str, options: Sequence[str]) -> Submission:
        """Start a driver for the batch on the cluster, unless one is at work on the same run directory already.

        The batch and the files that it refers to (`carried`, relative to its folder) travel with the job.
        """
        with cluster_errors("the cluster does not take the job"):
            return self.submitted(batch, carried, output, options)

    def submitted(self, batch: Path, carried: Sequence[Path], output: str, options: Sequence[str]) -> Submission:
        name = job_name(output)
        earlier = [job for job in self.client.list_jobs() if (job.submission_id or "").startswith(name)]
        for job in earlier:
            if not job.status.is_terminal():
                return Submission(str(job.submission_id), job.status.value, is_new=False)
        with tempfile.TemporaryDirectory(prefix="advanchor-") as folder:
            shutil.copyfile(batch, Path(folder) / "batch.yaml")
            for path in carried:
                (Path(folder) / path.parent).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(batch.parent / path, Path(folder) / path)
            job_id = patiently(
                self.client.submit_job,
                submission_id=f"{name}-{len(earlier) + 1}",
                entrypoint=shlex.join([*COMMAND, "batch.yaml", "--output", output, *options]),
                runtime_env={"working_dir": folder},
                metadata={"output": output},
            )
        return Submission(job_id, JobStatus.PENDING.value, is_new=True)

    def follow(self, job_id: str) -> str:
        """Print what the driver prints until it ends, and why if it fails; returns how it ended."""
        shown = 0
        while True:
            with cluster_errors(f"{job_id} runs on, but cannot be followed"):
                job = self.client.get_job_info(job_id)
                text = self.client.get_job_logs(job_id)
            sys.stdout.write(text[shown:])
            sys.stdout.flush()
            shown = len(text)
            if job.status.is_terminal():
                if job.status != JobStatus.SUCCEEDED:
                    print(job.message)
                return job.status.value
            time.sleep(POLL_S)
