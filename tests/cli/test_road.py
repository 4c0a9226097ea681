"""The README's road, "Your own list", walked as it is written: from a list of names to a pipeline that diffusers loads.

The commands and the four lines of Python are taken out of the README. What differs is the model, and settings that make
it cheap: a closed form, pictures of one step, and a gate that lets everything through.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from patience import PATIENCE_S
from PIL import Image
from safetensors.torch import load_file
from test_docs import arguments, blocks
from typer.testing import CliRunner

from advanchor import models
from advanchor.cli import app

README = (Path(__file__).parents[2] / "README.md").read_text()
ROAD = README.partition("\n## Your own list\n")[2].partition("\n## ")[0]
TABLE, COMMANDS, PYTHON = blocks(ROAD)
NAMES = [
    "striped,style,checkered", "gradient,style,", "dotted,style,", "checkered,style,",
    "star,object,heart", "heart,object,", "ring,object,circle", "sigil,explicit,",
    "mira morwin,identity,", "anton zanton,identity,", "lena toric,identity,", "oskar denmas,identity,",
]  # fmt: skip
ONE_STEP = {"num_prompts": 1, "images_per_prompt": 1, "num_retained": 2, "retained_images_per_prompt": 1, "steps": 1}
CHEAP = {
    "erase": ["--local"],
    "fuse": [
        "--set", "evaluate.num_prompts=1", "--set", "evaluate.images_per_prompt=1", "--set", "evaluate.steps=1",
        "--set", "bars.ua=0", "--set", "bars.retained=0",
    ],
}  # fmt: skip


def commands() -> Iterator[list[str]]:
    """Each as its words, for the pocket gallery."""
    for line in COMMANDS.splitlines():
        verb, *rest = arguments(re.split(r"\s{2,}|\s#\s", line)[0])
        yield [verb, *("pocket" if word.startswith("CompVis/") else word for word in rest), *CHEAP.get(verb, [])]


def make_cheap(batch: Path) -> None:
    """What `init` has written, with other settings: its method and its evaluation are replaced."""
    text = batch.read_text()
    start, end = text.index("method:"), text.index("resources:")
    settings = f"method: {{name: uce}}\nevaluate: {json.dumps(ONE_STEP)}\n"
    batch.write_text(text[:start] + settings + text[end:])


def run(words: list[str]) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.output


def review(words: list[str]) -> None:
    """Open the page and accept one concept, as a person would; then Ctrl-C."""
    command = [sys.executable, "-P", "-m", "advanchor.cli", *words]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().removeprefix("review: ").strip()
            page = urllib.request.urlopen(address).read().decode()
            [task] = re.findall(r'data-task="(\w+)"[^>]*data-name="star"', page)
            headers = {"Origin": address[: address.index("/", 7)], "Content-Type": "application/json"}
            told = json.dumps({"task": task, "verdict": "accept"}).encode()
            urllib.request.urlopen(urllib.request.Request(f"{address}verdicts", told, headers))
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0 and "verdicts given: 1" in output


@pytest.mark.slow
def test_the_road_from_a_list_to_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    Path("artists.csv").write_text("\n".join([TABLE.splitlines()[0], *NAMES]) + "\n")
    said: list[tuple[str, str]] = []
    for words in commands():
        if words[0] == "review":
            review(words)
        else:
            said.append((words[0], run(words)))
        if words[0] == "init":
            make_cheap(Path("batch.yaml"))
    verbs, outputs = zip(*said, strict=True)
    assert verbs == ("init", "check", "plan", "erase", "erase", "results", "fuse", "export")
    expected = ("12 concepts for pocket", "12 concepts, 0 findings", "12 tasks, 0 of them done", "9 wait", "12 done")
    assert all(part in output for part, output in zip(expected, outputs, strict=False)), outputs[:5]
    table = outputs[verbs.index("results")].splitlines()
    assert len(table) == 13 and sum(",accept," in line for line in table) == 0  # nobody has looked yet
    assert "12 concepts in fused" in outputs[-2] and Path("runs/batch/report/index.html").is_file()
    holds_the_sum_of_both(Path("fused"))
    assert (
        Path("lora/fused.safetensors").is_file() and "| oskar denmas | identity |" in Path("lora/README.md").read_text()
    )
    loads_in_stock_diffusers()


@torch.no_grad()
def holds_the_sum_of_both(fused: Path) -> None:
    """The pipeline is the base with the fused delta in it."""
    delta = load_file(fused / "delta.safetensors")
    stock: Any = UNet2DConditionModel.from_pretrained(fused / "pipeline" / "unet")
    base = models.load("pocket").backbone
    assert delta and len(json.loads((fused / "fused.json").read_text())["concepts"]) == 12
    for name, dw in delta.items():
        assert dw.norm() > 0 and torch.allclose(stock.get_parameter(name), base.get_parameter(name) + dw, atol=1e-6)


def loads_in_stock_diffusers() -> None:
    """README's lines, in a process that knows nothing of this program."""
    Path("use.py").write_text(f"{PYTHON}\nimport sys\nassert 'advanchor' not in sys.modules\n")
    done = subprocess.run([sys.executable, "use.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open("erased.png") as picture:
        assert picture.size == (32, 32)
