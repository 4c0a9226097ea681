"""Pictures of a run's live view, at 80 and 160 columns: docs/live-NAME-COLUMNS.svg.

python docs/live.py NAME SHARE erase configs/gallery.yaml --only 6

SHARE of the tasks, from 0 to 1, are done when the pictures are taken. It needs tmux; the run goes on to its end.
"""

import re
import shlex
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

SIZES = ((80, 24), (160, 40))
SESSION = "advanchor-live"
PATIENCE_S = 3600


def tmux(*words: str) -> str:
    return subprocess.run(["tmux", "-L", SESSION, *words], check=True, capture_output=True, text=True).stdout


def share_done(screen: str) -> float:
    """Of the first "12 of 300" on the screen, which is the bar's; 0 if there is none."""
    found = re.search(r"(\d+) of (\d+)", screen)
    return int(found[1]) / int(found[2]) if found else 0.0


def picture(path: Path, columns: int, title: str) -> None:
    screen = Text.from_ansi(tmux("capture-pane", "-e", "-p", "-t", SESSION).rstrip("\n"))
    console = Console(record=True, width=columns, file=StringIO())
    console.print(screen, overflow="ignore", crop=False)
    path.write_text(console.export_svg(title=title))


def main(name: str, share: float, words: list[str]) -> None:
    command = shlex.join([str(Path(sys.executable).with_name("advanchor")), *words])
    width, height = SIZES[0]
    tmux("new-session", "-d", "-s", SESSION, "-x", str(width), "-y", str(height), f"{command}; sleep {PATIENCE_S}")
    end = time.monotonic() + PATIENCE_S
    while share_done(tmux("capture-pane", "-p", "-t", SESSION)) < share:
        if time.monotonic() > end:
            raise SystemExit(f"{share:.0%} were not done within {PATIENCE_S} s")
        time.sleep(0.5)
    for width, height in SIZES:
        tmux("resize-window", "-t", SESSION, "-x", str(width), "-y", str(height))
        time.sleep(2)  # the view is drawn anew
        picture(Path(__file__).with_name(f"live-{name}-{width}.svg"), width, f"advanchor {shlex.join(words)}")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
