"""advanchor submit: hand a batch to a cluster and go home."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advanchor.cli import common, erase
from advanchor.cli.console import safe, say

if TYPE_CHECKING:
    from advanchor.batch.spec import BatchSpec


def submit(
    batch: common.BatchFile,
    overrides: common.Overrides = None,
    output: common.Output = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The cluster or its dashboard, http://host:8265; RAY_API_SERVER_ADDRESS and RAY_ADDRESS win."
        ),
    ] = None,
    insecure_no_token: erase.Insecure = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay, and show what the run prints until it ends.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Start a batch on a Ray cluster as a job of its own. A run that is already at work there is not started twice."""
    common.quiet()
    from advanchor.batch.file import read_batch
    from advanchor.rundir.store import Store
    from advanchor.runtime.errors import ClusterError
    from advanchor.runtime.jobs import Jobs

    with common.user_errors():
        spec = read_batch(batch, overrides or (), output).spec
        url = Store(spec.output).url
    options = [word for override in overrides or () for word in ("--set", override)]
    options += ["--insecure-no-token"] if insecure_no_token else []
    try:
        jobs = Jobs(address, allow_without_token=insecure_no_token)
        job = jobs.submit(batch, carried_files(spec), url, options)
    except ClusterError as error:
        common.fail(str(error))
    if as_json:
        print(json.dumps({"job": job.id, "status": job.status, "new": job.is_new, "output": url}))
    else:
        say(safe(f"{'submitted' if job.is_new else 'already there, ' + job.status.lower()}: {job.id}"))
        say(f"  advanchor status {safe(url)}\n  advanchor cancel {safe(url)} --all")
    if follow:
        try:
            ended = jobs.follow(job.id)
        except ClusterError as error:
            common.fail(str(error))
        raise typer.Exit(common.OK if ended == "SUCCEEDED" else common.SOME_FAILED)


def carried_files(spec: "BatchSpec") -> list[Path]:
    """The tables that a batch refers to; exit code 2 for one that does not lie in or below the batch's folder."""
    from advanchor.batch.spec import FileEntry

    paths = [entry.source for entry in spec.concepts if isinstance(entry, FileEntry)]
    for path in paths:
        if path.is_absolute() or ".." in path.parts:
            common.fail(f"from: {path} does not lie in the batch's folder, and only files there travel with a batch")
    return paths
