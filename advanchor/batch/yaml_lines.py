"""YAML, strictly, and where in the file everything stands.

A text may come from anybody. Its depth is bounded, and so is what its aliases expand to, before anything is made of it.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from advanchor.messages import quoted, shown

Path = tuple[str | int, ...]  # ("concepts", 0, "kind")
Place = tuple[int, int]  # line and column, from one
MAX_DEPTH = 50  # levels of lists and mappings; a batch has six
MAX_NODES = 200_000  # values and keys, each alias counted as all that it stands for
TAGS = {  # kind of a value -> what it is called in messages
    "tag:yaml.org,2002:map": "mapping",
    "tag:yaml.org,2002:seq": "list",
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "whole number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "yes or no",
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:timestamp": "date",
}
TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"
SIGNS = {MERGE, "tag:yaml.org,2002:value"}  # "<<" and "=", which mean something as keys only
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")  # also halves of characters
LINE_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


class YamlError(ValueError):
    """Text that is not YAML, has a key twice, or is too deep or too large."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-5 is a number, as everywhere else."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise YamlError(f"is nested more than {MAX_DEPTH} levels deep", place_of(mark))
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except YamlError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = TAGS.get(node.tag, node.tag)
            raise YamlError(
                f"{quoted(node.value)} looks like a {kind} and is none: put it in quotes if it is a text",
                place_of(node.start_mark),
            ) from error


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
    loader: Loader | None = None
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        places: dict[Path, Place] = {}
        if root is not None:
            expanded_size(root, {})
            collect(root, (), places)
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = place_of(mark) if mark else (1, 1)
        raise YamlError(f"not YAML: {shown(error.problem or error.context)}", place) from error
    except yaml.reader.ReaderError as error:
        character = quoted(text[error.position : error.position + 1])
        raise YamlError(f"not YAML: the character {character} is not allowed", place_at(text, error.position)) from None
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {shown(error)}", (1, 1)) from error
    except YamlError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # of escapes like "\UFFFFFFFF"
        place = place_of(loader.get_mark()) if loader else (1, 1)
        raise YamlError(f"not YAML: {shown(error)}", place) from error
    finally:
        if loader:
            loader.dispose()
    return Document(data, places)


def place_of(mark: yaml.Mark) -> Place:
    return mark.line + 1, mark.column + 1


def place_at(text: str, position: int) -> Place:
    """The place of a character."""
    lines = LINE_ENDS.split(text[:position])
    return len(lines), len(lines[-1]) + 1


def expanded_size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Nodes in a node, aliases expanded; None in `known` while a node is being counted. Raises YamlError."""
    own = id(node)
    if own not in known:
        known[own] = None
        known[own] = 1 + sum(expanded_size(part, known) for part in parts(node))
    size = known[own]
    if size is None:
        raise YamlError("an alias stands within what it is an alias of", place_of(node.start_mark))
    if size > MAX_NODES:
        raise YamlError(
            f"with its aliases has more than {MAX_NODES:,} values; a long list of concepts belongs in a CSV table",
            place_of(node.start_mark),
        )
    return size


def parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def collect(node: yaml.Node, path: Path, places: dict[Path, Place]) -> None:
    """The places of a node and all below it. Keys become texts, as they are written. Raises YamlError."""
    places.setdefault(path, place_of(node.start_mark))
    check_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            collect(child, (*path, i), places)
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            place = place_of(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError("a key must be a text", place)
            merges = key.tag == MERGE
            check_scalar(key)
            below = (*path, key.value)
            if below in places:
                raise YamlError(
                    f"the key {quoted(key.value)} stands here a second time (first in line {places[below][0]})", place
                )
            key.tag = MERGE if merges else TEXT
            places[below] = place
            collect(child, below, places)


def check_scalar(node: yaml.Node) -> None:
    """Raises YamlError for a tag or a character that no batch has a use for."""
    if node.tag in SIGNS and isinstance(node, yaml.ScalarNode):
        node.tag = TEXT
    if node.tag not in TAGS:
        raise YamlError(f"the tag {quoted(node.tag)} is not known here", place_of(node.start_mark))
    if isinstance(node, yaml.ScalarNode) and (found := CONTROL.search(node.value)):
        raise YamlError(f"the text has the control character {quoted(found[0])}", place_of(node.start_mark))
