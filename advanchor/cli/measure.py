"""advanchor measure: folders of pictures that `generate --prompts` has filled, judged by a classifier."""

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advanchor.cli import common
from advanchor.cli.console import safe, say

if TYPE_CHECKING:
    from advanchor.evaluation.classifier import ImageClassifier


def measure(
    folder: Annotated[
        Path, typer.Argument(help="A folder that `generate --prompts --folder` has filled.", show_default=False)
    ],
    classifier: Annotated[
        Path, typer.Option(help="An image classifier's folder: config.json with labels, safetensors.")
    ],
    erased: Annotated[
        list[str] | None, typer.Option(help="A category that is erased; may be repeated. H_o needs it.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Real pictures that both sides are compared with, too.")] = None,
    as_json: common.AsJson = False,
) -> None:
    """Say how often each category is recognised before and after erasing, H_o, and how far apart the pictures are."""
    common.quiet()
    from advanchor.evaluation.classifier import ImageClassifier
    from advanchor.evaluation.folders import PicturesError
    from advanchor.evaluation.prompt_table import TableError
    from advanchor.messages import choice

    with common.user_errors():
        try:
            judge = ImageClassifier(classifier)
            found = measured(folder, judge, erased or [], against)
        except (PicturesError, TableError) as error:
            common.fail(str(error))
    for name in erased or []:
        if name not in found["categories"]:
            common.fail(f"--erased {choice(name, list(found['categories']))}")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        tell(found)


def measured(folder: Path, judge: "ImageClassifier", erased: list[str], against: Path | None) -> dict[str, Any]:
    """Raises PicturesError and TableError."""
    from advanchor.evaluation.folders import batches, features_of, harmonic, kernel_distance, picture_files
    from advanchor.evaluation.metrics import frechet_distance
    from advanchor.evaluation.prompt_table import read_index

    rows = read_index(folder)
    sides = [name for name in ("base", "erased") if (folder / name).is_dir()]
    files = {name: [folder / name / row["file"] for row in rows] for name in sides}
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for name in sides:
        seen = [label for pictures in batches(files[name]) for label in judge.read(pictures)]
        for row, label in zip(rows, seen, strict=True):
            right[row["category"]][name].append(label.lower() == row["category"].lower())
    share = {c: {name: sum(hits) / len(hits) for name, hits in own.items()} for c, own in right.items()}
    found: dict[str, Any] = {"pictures": len(rows), "categories": share}
    if "erased" in sides and erased:
        told = [hit for category in erased for hit in right.get(category, {}).get("erased", [])]
        kept = [hit for category, own in right.items() if category not in erased for hit in own["erased"]]
        if told and kept:
            acc_e, acc_s = sum(told) / len(told), sum(kept) / len(kept)
            found |= {"acc_e": acc_e, "acc_s": acc_s, "h_o": harmonic(acc_e, acc_s)}
    features = {name: features_of(files[name], judge.features) for name in sides}
    if against:
        features["against"] = features_of(picture_files(against), judge.features)
    names = list(features)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            pair = features[a], features[b]
            found[f"{a}, {b}"] = {"frechet": frechet_distance(*pair), "kernel": kernel_distance(*pair)}
    return found


def tell(found: dict[str, Any]) -> None:
    say(f"{found['pictures']} rows; recognised, in percent:")
    for category, sides in found["categories"].items():
        say("  " + safe(category or "(no category)") + "".join(f"  {n} {100 * v:.1f}" for n, v in sides.items()))
    if "h_o" in found:
        say(f"ACC_e {100 * found['acc_e']:.1f}, ACC_s {100 * found['acc_s']:.1f}, H_o {100 * found['h_o']:.1f}")
    for pair, distances in found.items():
        if isinstance(distances, dict) and "kernel" in distances:
            say(f"{pair}: Frechet {distances['frechet']:.4f}, kernel {distances['kernel']:.6f}, in its features")
