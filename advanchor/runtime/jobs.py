"""Runs as Ray Jobs: the driver works on the cluster, and whoever submitted it may go home."""

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from advanchor.plan import content_hash, slug
from advanchor.runtime.drive import ClusterError
from advanchor.runtime.ray_cluster import check_token

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


patiently = Retrying(
    retry=retry_if_exception(is_starting), stop=stop_after_delay(PATIENCE_S), wait=wait_fixed(POLL_S), reraise=True
)


class Jobs:
    def __init__(self, address: str | None, *, allow_without_token: bool) -> None:
        """`address`: the cluster's, or its dashboard's (http://host:8265). Raises ClusterError."""
        check_token(address, allow_without_token=allow_without_token)
        try:
            self.client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(f"no cluster that takes jobs at {address or 'this machine'}: {error}") from error

    def submit(self, batch: Path, carried: Sequence[Path], output: str, options: Sequence[str]) -> Submission:
        """Start a driver for the batch on the cluster, unless one is at work on the same run directory already.

        The batch and the files that it refers to (`carried`, relative to its folder) travel with the job.
        """
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
