"""The page that `advanchor bench gpu` leaves, as Markdown, from its figures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from advanchor.batch.memory import GB, SPARE

Figures = Mapping[str, Any]
HEAD = """# On a GPU

    {command}

{device}, PyTorch {torch}, {minutes:.1f} minutes. Every base has the exact shape of its published backbone and random
weights in bf16, made on the device. There are no text encoders and no VAE: encoders leave the device before anything is
trained. These figures say what erasing costs, not what it does.
"""
COLUMNS = """
- **training**: a step of `adv_anchor` at the readers, `batch_size: 1`: one step of the search and one of the student,
  for a whole pack. The pack is the largest of 8, 4, 2 and 1 whose counted memory fits.
- **sampling**: a step of two pictures, with guidance as their pipeline has it.
- **counted**: what `advanchor plan` counts for denoiser, deltas and {spare:g} x activations.
- **of peak**: operations per second as a share of those of a large bf16 product on the same device. What checkpointing
  makes again counts as work.
"""


STEP = ("base", "step", "pixels", "concepts", "s", "TFLOP/s", "of peak", "peak GB", "counted GB")
SCHEDULES = "At Stable Diffusion 1.4's shapes; [speed.md](../speed.md) says what is compared.\n"
SCHEDULE = ("variant", "train s per concept", "concepts per hour", "ratio", "peak MB", "of peak")


def page(found: Figures, command: str) -> str:
    minutes = found["seconds"] / 60
    parts = [
        HEAD.format(command=command, device=found["device"], torch=found["torch"], minutes=minutes),
        "## Every base\n",
        table(STEP, rows(found)),
        COLUMNS.format(spare=SPARE),
    ]
    if found["failed"]:
        parts += ["Not measured:\n", *(f"- {name}: {why}" for name, why in found["failed"].items()), ""]
    if found["schedules"]:
        parts += ["## The authors' schedule and ours\n", SCHEDULES, table(SCHEDULE, schedules(found)), ""]
    return "\n".join([*parts, "## Two cards\n", f"ZeRO-3 over two ranks: {found['zero_3']}.", ""])


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head, *others = (f"| {' | '.join(cells)} |" for cells in (columns, *lines))
    return "\n".join([head, "|---" * len(columns) + "|", *others])


def rows(found: Figures) -> Iterable[list[str]]:
    for base in found["bases"]:
        name = f"{base['name']} ({base['weights'] / 1e9:.2f} B)"
        for step in base["steps"]:
            yield [name, *cells(step, base["matmul_flops"])]
            name = ""


def cells(step: Figures, peak: float) -> list[str]:
    start = [step["what"], str(step["pixels"]), str(step["concepts"] or "–")]
    counted = amount(step["counted_bytes"], GB)
    if step["seconds"] is None:
        return [*start, "does not fit", "–", "–", "–", counted]
    rate = step["flops"] / step["seconds"]
    shares = f"{rate / 1e12:.2f}", f"{100 * rate / peak:.1f} %"
    return [*start, f"{step['seconds']:.2f}", *shares, amount(step["peak_bytes"], GB), counted]


def amount(value: float | None, unit: float) -> str:
    return "–" if value is None else f"{value / unit:.2f}"


def schedules(found: Figures) -> Iterable[list[str]]:
    for row in found["schedules"]:
        figures = f"{row['train_s']:.2f}", f"{row['concepts_per_hour']:.0f}", f"{row['ratio']:.2f}"
        yield [row["variant"], *figures, f"{row['peak_mb']:.0f}", f"{100 * row['of_peak']:.1f} %"]
