"""YAML, strictly, and where in the file everything stands."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]  # ("concepts", 0, "kind")
Place = tuple[int, int]  # line and column, from one


class YamlError(ValueError):
    """Text that is not YAML, or has a key twice."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-5 is a number, as everywhere else."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Document:
    data: Any
    places: dict[Path, Place]  # of every key and every list item

    def place(self, path: Path) -> Place:
        """Where a path stands; of one that does not exist, where its nearest parent does."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def parse(text: str) -> Document:
    """Raises YamlError."""
    loader = Loader(text)
    try:
        root = loader.get_single_node()
        places: dict[Path, Place] = {}
        if root is not None:
            collect(root, (), places)
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlError(f"not YAML: {error.problem or error.context}", place) from error
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {error}", (1, 1)) from error
    finally:
        loader.dispose()
    return Document(data, places)


def collect(node: yaml.Node, path: Path, places: dict[Path, Place]) -> None:
    places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            collect(child, (*path, i), places)
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            place = key.start_mark.line + 1, key.start_mark.column + 1
            below = (*path, str(key.value))
            if below in places:
                raise YamlError(
                    f"the key {key.value!r} stands here a second time (first in line {places[below][0]})", place
                )
            places[below] = place
            collect(child, below, places)
