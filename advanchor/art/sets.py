"""The five open emoji sets that the art gallery is drawn from: fetched, checked by their digests, and rendered.

The sets are packages of the npm registry. `npm` fetches them, from the registry that it is configured with.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from advanchor.art.world import STYLES, Subject

EDGE = 96  # pixels along the edge of a rendered picture: more than a scene shows
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
LARGEST = 200_000_000  # bytes of a set's JSON


class SetError(ValueError):
    """An emoji set that cannot be had, or that is not the one that the gallery is made from."""


@dataclass(frozen=True)
class EmojiSet:
    """A published package, and what its licence wants to be said."""

    style: str  # what prompts call it
    package: str
    version: str
    sha256: str  # of the package's file
    licence: str
    author: str
    source: str

    @property
    def file(self) -> str:
        """As `npm pack` calls it."""
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


SETS = (
    EmojiSet(
        style="fluent",
        package="@iconify-json/fluent-emoji",
        version="1.2.7",
        sha256="8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        licence="MIT",
        author="Microsoft Corporation",
        source="https://github.com/microsoft/fluentui-emoji",
    ),
    EmojiSet(
        style="flat",
        package="@iconify-json/fluent-emoji-flat",
        version="1.2.6",
        sha256="7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        licence="MIT",
        author="Microsoft Corporation",
        source="https://github.com/microsoft/fluentui-emoji",
    ),
    EmojiSet(
        style="noto",
        package="@iconify-json/noto",
        version="1.2.9",
        sha256="3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        licence="Apache-2.0",
        author="Google Inc",
        source="https://github.com/googlefonts/noto-emoji",
    ),
    EmojiSet(
        style="blob",
        package="@iconify-json/noto-v1",
        version="1.2.5",
        sha256="2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        licence="Apache-2.0",
        author="Google Inc",
        source="https://github.com/googlefonts/noto-emoji",
    ),
    EmojiSet(
        style="twemoji",
        package="@iconify-json/twemoji",
        version="1.2.5",
        sha256="19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        licence="CC-BY-4.0",
        author="Twitter and contributors",
        source="https://github.com/jdecked/twemoji",
    ),
)


def fetch(one: EmojiSet, folder: Path) -> Path:
    """The set's file in a folder, fetched if it is not there. Raises SetError."""
    path = folder / one.file
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SetError(f"{path} is not there, and npm, which fetches {one.package}, is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", "--silent", f"{one.package}@{one.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode or not path.exists():
            why = (done.stderr.strip().splitlines() or ["npm said nothing"])[-1]
            raise SetError(f"npm could not fetch {one.package}@{one.version}: {why}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != one.sha256:
        raise SetError(f"{path} is not {one.package}@{one.version}: its sha256 is {found}, not {one.sha256}")
    return path


def svg(icons: Mapping[str, Any], name: str) -> str:
    """An icon of a set's icons.json as a picture of its own. Raises SetError."""
    if (icon := icons["icons"].get(name)) is None:
        raise SetError(f"the set {icons.get('prefix')!r} has no icon {name!r}")
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return f'<svg {NAMESPACES} viewBox="{box}">{icon["body"]}</svg>'


def read(path: Path) -> dict[str, Any]:
    """The icons.json of a package. Raises SetError."""
    with tarfile.open(path) as archive:
        member = archive.getmember("package/icons.json")
        file = archive.extractfile(member)
        if file is None or member.size > LARGEST:
            raise SetError(f"{path} has no icons.json of a sound size")
        return json.load(file)


def rendered(picture: str) -> np.ndarray:
    """An SVG in the middle of (EDGE, EDGE, 4), uint8, with transparency."""
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(svg_string=picture, width=EDGE, height=EDGE, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    page = Image.new("RGBA", (EDGE, EDGE))
    page.paste(image, ((EDGE - image.width) // 2, (EDGE - image.height) // 2))
    return np.asarray(page)


def sprites(pictures: Mapping[str, Mapping[str, Any]], among: Sequence[Subject]) -> np.ndarray:
    """(subjects, styles, EDGE, EDGE, 4), uint8. `pictures`: the icons.json of each style."""
    rows = [[rendered(svg(pictures[style], subject.icon)) for style in STYLES] for subject in among]
    return np.stack([np.stack(row) for row in rows])


def fetched(folder: Path) -> dict[str, dict[str, Any]]:
    """The icons.json of every style. Raises SetError."""
    return {one.style: read(fetch(one, folder)) for one in SETS}


def stand_ins(among: Sequence[Subject]) -> dict[str, dict[str, Any]]:
    """Plain shapes in the sets' own form, for a training that only shows that it runs: a shape per subject,
    a colour per style."""
    shapes = ('<circle cx="8" cy="8" r="6" {}/>', '<path d="M8 1 15 14H1z" {}/>', '<path d="M2 3h12v10H2z" {}/>')
    colours = ("#d33", "#3a3", "#33d", "#e90", "#939")
    return {
        style: {
            "prefix": style,
            "icons": {
                subject.icon: {"body": shapes[i % len(shapes)].format(f'fill="{colour}"')}
                for i, subject in enumerate(among)
            },
        }
        for style, colour in zip(STYLES, colours, strict=True)
    }
