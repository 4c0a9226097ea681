"""What can be wrong with a cluster."""


class ClusterError(RuntimeError):
    """A cluster that cannot be joined, or that can never hold one gang."""
