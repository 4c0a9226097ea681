"""Tables of prompts as benchmarks publish them: one picture a row, named by the row, the same on any machine.

A row's noise comes from its own seed. What stands in a file decides the bits: pictures are sampled in groups that the
table alone determines, so that a run which was stopped ends with what one run draws.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from advanchor.evaluation.generate import generate, numbered_seeds, rows_at_once
from advanchor.evaluation.grids import to_pixels
from advanchor.evaluation.settings import SamplingSettings
from advanchor.models.base import Base

TITLES = {  # what benchmarks call the columns
    "prompt": ("prompt", "prompts"),
    "seed": ("seed", "evaluation_seed", "sd_seed"),
    "guidance": ("guidance", "evaluation_guidance", "sd_guidance_scale"),
    "category": ("category", "categories", "concept", "class", "label"),
}
LARGEST_SEED = 2**63 - 1
MOST_ROWS, MOST_BYTES = 1_000_000, 200_000_000
INDEX = ("file", "prompt", "seed", "guidance", "category")


class TableError(ValueError):
    """What is wrong with a table of prompts, a line for each mistake."""


@dataclass(frozen=True)
class PromptRow:
    number: int  # of the row, from 0 on
    prompt: str
    seed: int
    guidance: float
    category: str = ""

    @property
    def file(self) -> str:
        return f"{self.number:06}.png"


def read_rows(path: Path, guidance: float, seed: int = 0) -> list[PromptRow]:
    """The rows of a CSV file; `guidance` where a row has none, and the evaluator's own seeds from `seed` likewise.

    Raises TableError.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TableError(f"{path}: is larger than {MOST_BYTES:,} bytes")
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        read = [(reader.line_num, row) for row in reader]
        titles = reader.fieldnames or []
    except (OSError, csv.Error, UnicodeDecodeError, ValueError) as error:
        raise TableError(str(error) if isinstance(error, TableError) else f"{path}: {error}") from error
    columns = {name: next((t for t in titles if t.strip().lower() in own), None) for name, own in TITLES.items()}
    if columns["prompt"] is None:
        raise TableError(f"{path}:1: has no column named {' or '.join(TITLES['prompt'])}")
    if not 0 < len(read) <= MOST_ROWS:
        raise TableError(f"{path}: has {len(read):,} rows; 1 to {MOST_ROWS:,} can be drawn")
    prompts = [(row.get(columns["prompt"]) or "").strip() for _, row in read]
    seeds = numbered_seeds(prompts, seed)
    problems: list[str] = []
    found = []
    for number, (line, row) in enumerate(read):
        cells = {name: (row.get(title) or "").strip() if title else "" for name, title in columns.items()}
        try:
            own_seed = whole(cells["seed"]) if cells["seed"] else seeds[number]
            own_guidance = scale(cells["guidance"]) if cells["guidance"] else guidance
            found.append(PromptRow(number, prompts[number], own_seed, own_guidance, cells["category"]))
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
    if problems:
        raise TableError("\n".join([*problems[:10], *([f"and {len(problems) - 10} more"] if problems[10:] else [])]))
    return found


def whole(text: str) -> int:
    """A seed; spreadsheets may have written it as 42.0."""
    value = text.removesuffix(".0")
    if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= LARGEST_SEED):
        raise ValueError(f"seed {text[:40]!r} is not a whole number from 0 to {LARGEST_SEED}")
    return int(value)


def scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1000:
        raise ValueError(f"guidance {text[:40]!r} is not a number from 0 to 1000")
    return value


def groups(rows: Sequence[PromptRow], size: int) -> list[list[PromptRow]]:
    """Rows that are sampled together: of equal guidance, in order, at most `size`."""
    found = []
    for guidance in dict.fromkeys(row.guidance for row in rows):
        own = [row for row in rows if row.guidance == guidance]
        found += [own[start : start + size] for start in range(0, len(own), size)]
    return found


def draw_missing(
    base: Base, rows: Sequence[PromptRow], folder: Path, settings: SamplingSettings, share: int = 0, shares: int = 1
) -> Iterator[int]:
    """Write the pictures that the folder lacks; yields how many after each group. A picture appears whole or not.

    Groups are as large as the evaluator's, so that both draw the same bits for the same list. One of several shares
    has every `shares`-th group.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for group in groups(rows, rows_at_once(base.latent_shape))[share::shares]:
        missing = [i for i, row in enumerate(group) if not (folder / row.file).exists()]
        if missing:
            own = settings.model_copy(update={"guidance": group[0].guidance})
            pictures = generate(base, [row.prompt for row in group], [row.seed for row in group], own)
            for i in missing:
                write_png(folder / group[i].file, pictures[i])
        yield len(missing)


def write_png(path: Path, picture: Tensor) -> None:
    from PIL import Image

    part = path.with_suffix(".part")
    Image.fromarray(to_pixels(picture)).save(part, "PNG")
    part.replace(path)


def index(rows: Sequence[PromptRow]) -> str:
    """What each picture was asked for, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(INDEX)
    writer.writerows([row.file, row.prompt, row.seed, row.guidance, row.category] for row in rows)
    return text.getvalue()


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Of a folder that `generate --prompts` has filled. Raises TableError."""
    path = folder / "rows.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise TableError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not rows or any(row.get("file") != f"{i:06}.png" for i, row in enumerate(rows)):
        raise TableError(f"{path}: is not what `advanchor generate --prompts` writes")
    return rows
