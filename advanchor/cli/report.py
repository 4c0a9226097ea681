"""advanchor report: the run as one page."""

from advanchor.cli import common


def report(run: common.RunDirectory) -> None:
    """Write report/index.html anew from what the run directory holds, and say where it is."""
    from advanchor.report.html import write_report
    from advanchor.runtime.store import Store

    store = Store(run)
    if store.read("batch.yaml") is None:
        common.fail(f"{run} has no batch.yaml: it is not a run directory")
    print(write_report(store))
