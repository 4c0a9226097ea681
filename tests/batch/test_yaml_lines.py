"""YAML from anybody: bounded, and every mistake with its place."""

import time

import pytest

from advanchor.batch.yaml_lines import MAX_DEPTH, MAX_NODES, YamlError, parse


def mistake(text: str) -> tuple[str, tuple[int, int]]:
    with pytest.raises(YamlError) as caught:
        parse(text)
    return str(caught.value), caught.value.place


def doubled(levels: int) -> str:
    """The last of the aliases stands for 2 ** levels texts."""
    return "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, levels + 1))


def test_anchors_and_aliases_stay() -> None:
    document = parse("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert document.data == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    assert document.place(("b",)) == (2, 1) and document.place(("c", "y")) == (3, 13)


def test_what_aliases_expand_to_is_bounded() -> None:
    assert len(parse(doubled(8)).data) == 9
    started = time.monotonic()
    message, (line, _) = mistake(doubled(60))  # 10 ** 18 texts
    assert f"more than {MAX_NODES:,} values" in message and line > 10
    assert time.monotonic() - started < 30


def test_merges_are_bounded_too() -> None:
    rows = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    assert "more than" in mistake("\n".join(rows))[0]


@pytest.mark.parametrize("text", ["&a [*a]", "x: &a {y: [*a]}", "x: &a {<<: *a}"])
def test_an_alias_within_itself(text: str) -> None:
    assert mistake(text)[0] == "an alias stands within what it is an alias of"


@pytest.mark.parametrize("sign", ["[", "{a: ", "- ", "? "])
def test_depth_is_bounded(sign: str) -> None:
    assert mistake(sign * 1500)[0] == f"is nested more than {MAX_DEPTH} levels deep"


WRONG = {
    "a: \x1b": ("not YAML: the character '\\x1b' is not allowed", (1, 4)),
    "a: 1\nb: x\x00": ("not YAML: the character '\\x00' is not allowed", (2, 5)),
    'a: "\\e[0m"': ("the text has the control character '\\x1b'", (1, 4)),
    'a: "\\ud800"': ("the text has the control character '\\ud800'", (1, 4)),
    '"\\e": 1': ("the text has the control character '\\x1b'", (1, 1)),
    "a: 2024-13-45": ("'2024-13-45' looks like a date and is none: put it in quotes if it is a text", (1, 4)),
    "a: 0x_": ("'0x_' looks like a whole number and is none: put it in quotes if it is a text", (1, 4)),
    "a: [1, !!int abc]": ("'abc' looks like a whole number and is none: put it in quotes if it is a text", (1, 8)),
    "a: !!bool abc": ("'abc' looks like a yes or no and is none: put it in quotes if it is a text", (1, 4)),
    "a: !!timestamp abc": ("'abc' looks like a date and is none: put it in quotes if it is a text", (1, 4)),
    "a: !!binary abcd": ("the tag 'tag:yaml.org,2002:binary' is not known here", (1, 4)),
    "a: !!python/name:os.system": ("the tag 'tag:yaml.org,2002:python/name:os.system' is not known here", (1, 4)),
    "? [a, b]\n: 1": ("a key must be a text", (1, 3)),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_has_its_place(text: str) -> None:
    assert mistake(text) == WRONG[text]


def test_more_digits_than_python_reads() -> None:
    message, place = mistake("a: " + "9" * 5000)
    assert "looks like a whole number and is none" in message and place == (1, 4) and len(message) < 200


def test_keys_are_texts_as_they_are_written() -> None:
    assert parse("{1984: a, yes: b, ~: c, 2024-01-01: d}").data == {
        "1984": "a",
        "yes": "b",
        "~": "c",
        "2024-01-01": "d",
    }


def test_signs_that_only_mean_something_as_keys() -> None:
    assert parse("[=, <<]").data == ["=", "<<"]
