"""An erasure as files (`files`), and what is on a module that files were put on (`record`)."""

from advanchor.artifacts.files import (
    FORMAT,
    METADATA_KEY,
    ArtifactError,
    Buffer,
    delta_to_bytes,
    describe,
    erasure_files,
    from_bytes,
    read_metadata,
    sha256,
    to_bytes,
    views,
)
from advanchor.artifacts.record import applied

__all__ = [
    "FORMAT",
    "METADATA_KEY",
    "ArtifactError",
    "Buffer",
    "applied",
    "delta_to_bytes",
    "describe",
    "erasure_files",
    "from_bytes",
    "read_metadata",
    "sha256",
    "to_bytes",
    "views",
]
