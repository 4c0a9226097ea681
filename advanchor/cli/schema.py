"""advanchor schema: what a batch may say, for editors."""

from advanchor.batch.schema import SCHEMA_FILE
from advanchor.cli.console import say


def schema() -> None:
    """Print the JSON Schema of batch files, by which editors complete and check them.

    Batches name it in their first line: # yaml-language-server: $schema=...
    """
    say(SCHEMA_FILE.read_text().rstrip("\n"))
