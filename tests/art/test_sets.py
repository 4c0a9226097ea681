"""The emoji sets: fetched, checked and rendered, without the network."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from advanchor.art import sets
from advanchor.art.drawing import Pictures, draw
from advanchor.art.sets import SETS, SetError
from advanchor.art.world import BACKGROUNDS, SIZE, STYLES, Scene, subjects

ICONS = {"prefix": "mine", "width": 8, "height": 8, "icons": {"ant": {"body": '<path d="M0 0h4v8H0z" fill="#f00"/>'}}}


def package(path: Path) -> str:
    """A package as npm has them; returns its sha256."""
    content = json.dumps(ICONS).encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_style_has_a_set_with_a_licence_and_none_is_share_alike() -> None:
    assert [one.style for one in SETS] == list(STYLES)
    assert all(one.author and one.source.startswith("https://") for one in SETS)
    assert {one.licence for one in SETS} == {"MIT", "Apache-2.0", "CC-BY-4.0"}


def test_a_package_that_is_there_is_checked_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no npm
    digest = package(tmp_path / SETS[0].file)
    assert sets.read(sets.fetch(replace(SETS[0], sha256=digest), tmp_path)) == ICONS
    with pytest.raises(SetError, match=rf"is not @iconify-json/fluent-emoji@1\.2\.7: its sha256 is {digest}"):
        sets.fetch(SETS[0], tmp_path)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetError, match=r"noto-1\.2\.9\.tgz is not there, and npm.* is not installed"):
        sets.fetch(SETS[2], tmp_path)
    with pytest.raises(SetError, match="the set 'mine' has no icon 'bee'"):
        sets.svg(ICONS, "bee")


def test_an_icon_is_rendered_with_transparency() -> None:
    image = sets.rendered(sets.svg(ICONS, "ant"))
    assert image.shape == (sets.EDGE, sets.EDGE, 4)
    assert (image[:, : sets.EDGE // 2 - 1] == (255, 0, 0, 255)).all() and not image[:, sets.EDGE // 2 + 1 :, 3].any()


def test_a_scene_is_the_emoji_on_its_background() -> None:
    sprite = sets.rendered(sets.svg(ICONS, "ant"))
    scene = Scene(subjects()[0], "noto", "sand")
    pictures = Pictures(np.stack([np.stack([sprite] * len(STYLES))]), subjects()[:1], seed=0)
    images = pictures.images(range(40))
    assert images.shape == (40, 3, SIZE, SIZE)
    red = [(image[0] > 230) & (image[1] < 20) for image in images]
    assert all(22 * 44 * 0.9 < part.sum() < 30 * 60 * 1.1 for part in red)  # the left half of 44 to 60 pixels
    assert len({part.numpy().tobytes() for part in red}) > 30
    for number, image in enumerate(images):
        assert tuple(image[:, -1, -1].tolist()) == BACKGROUNDS[pictures.scene(number).background]
    assert (pictures.image(7) == images[7].permute(1, 2, 0).numpy()).all()
    again = Pictures(pictures.sprites, pictures.among, seed=1).images(range(40))
    assert (again != images).any()
    assert tuple(draw(sprite, scene, pictures.generator(0, "place"))[-1, -1]) == BACKGROUNDS["sand"]


def test_stand_ins_differ_by_subject_and_style() -> None:
    few = subjects()[:3]
    found = sets.sprites(sets.stand_ins(few), few)
    assert found.shape == (3, len(STYLES), sets.EDGE, sets.EDGE, 4)
    assert len({one.tobytes() for row in found for one in row}) == 3 * len(STYLES)
