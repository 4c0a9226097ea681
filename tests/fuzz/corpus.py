"""Every input that once ended in a traceback, a hang or the wrong word. What is found by fuzzing is added."""

HEAD = "model: pocket\nconcepts:\n  - {name: star, kind: object}\n"


def aliases(first: str, levels: int, *, merge: bool = False) -> str:
    """Each level is nine times the one before."""
    rows = [f"a0: &a0 {first}"]
    for i in range(1, levels):
        held = ", ".join([f"*a{i - 1}"] * 9)
        rows.append(f"a{i}: &a{i} {{<<: [{held}]}}" if merge else f"a{i}: &a{i} [{held}]")
    return "\n".join(rows) + "\n"


def concept(name: str) -> str:
    return f"model: pocket\nconcepts:\n  - {{kind: object, name: {name}}}\n"


BATCHES = {
    "nested aliases": aliases("[x, x, x, x, x, x, x, x, x]", 10),
    "nested aliases in a batch": HEAD + aliases("[x, x]", 10) + "method_by_kind: *a9\n",
    "nested merges": HEAD + aliases("{x: 1}", 12, merge=True),
    "an alias of itself": HEAD + "method: &a [*a]\n",
    "an alias of itself, deeper": HEAD + "method: &a {x: {y: *a}}\n",
    "a merge with itself": HEAD + "method: &a {<<: *a}\n",
    "a control character": HEAD.replace("star", "st\x1bar"),
    "NUL": HEAD + "seed: \x00\n",
    "an escaped control character": concept('"st\\ear"'),
    "an escape sequence as a key": HEAD + '"\\e]0;pwned\\a": 1\n',
    "1,500 lists": HEAD + "method: " + "[" * 1500 + "]" * 1500,
    "1,500 mappings": HEAD + "method: " + "{a: " * 1500 + "1" + "}" * 1500,
    "1,500 lists by dashes": "- " * 1500 + "x",
    "no such day": concept("2024-13-45"),
    "no digits": concept("0x_"),
    "not a number": concept("!!int abc"),
    "not a truth value": concept("!!bool abc"),
    "not a time": concept("!!timestamp abc"),
    "5,000 digits": HEAD + "seed: " + "9" * 5000,
    "400 digits": HEAD + "resources: {gpus_per_task: 1" + "0" * 400 + "}",
    "infinite ranks": HEAD + "resources: {gpus_per_task: .inf}",
    "1e400 ranks": HEAD + "resources: {gpus_per_task: 1e400}",
    "a learning rate of .inf": HEAD + "method: {name: esd, lr: .inf}",
    "an attribute of .nan": "model: pocket\nconcepts:\n  - {name: star, kind: object, attributes: {x: .nan}}\n",
    "a path with NUL": 'model: pocket\nconcepts:\n  - {from: "a\\0b"}\n',
    "half a character": HEAD.replace("object", 'object, templates: ["{} \\ud800"], neutral: [x]'),
    "a character beyond Unicode": concept('"\\U00110000"'),
    "a device as a table": "model: pocket\nconcepts:\n  - {from: /dev/zero}\n",
    "a path too long": "model: pocket\nconcepts:\n  - {from: " + "x" * 5000 + "}\n",
    "a model's name too long": "model: " + "x" * 5000 + "\nconcepts:\n  - {name: star, kind: object}\n",
    "nobody's home as a model": "model: ~nosuchuser/x\nconcepts:\n  - {name: star, kind: object}\n",
    "a list as a key": HEAD + "? [a, b]\n: 1\n",
    "a mapping as a key": HEAD + "{a: b}: 1\n",
    "a number as a key": HEAD + "1: 2\n",
    "null as a key": HEAD + "method_by_kind: {~: {steps: 1}}\n",
    "a method that is a list": HEAD + "method: [1]\n",
    "a method's name that is a list": HEAD + "method: {name: [1]}\n",
    "a kind's method that is nothing": HEAD + "method_by_kind: {style: ~}\n",
    "a value that is a sign": concept("="),
    "a merge as a value": concept("<<"),
    "a megabyte in one value": HEAD + "seed: " + "x" * 1_000_000,
}
RIGHT = ("a value that is a sign", "a merge as a value")  # texts, as it turns out
TABLES = {
    "a cell of 140,000 characters": "name,kind\n" + "x" * 140_000 + ",style\n",
    "an open quote": 'name,kind\n"star,object\n',
    "NUL": "name,kind\nst\x00ar,object\n",
    "a control character": "name,kind\nst\x1bar,object\n",
    "half a character": "name,kind\nst\udc80ar,object\n",
    "nothing": "",
    "a list of names": "Van Gogh\nPicasso\n",
    "prompts": "name,kind,templates\nstar,object,a {}\n",
    "too many cells": "name,kind\nGogh, late,style\n",
    "a column twice": "name,kind,name\nstar,object,moon\n",
}
OPTIONS = (
    "seed=" + "9" * 5000,
    "seed=&a [*a]",
    "method=" + "[" * 1500,
    "seed=2024-13-45",
    "seed=0x_",
    "resources.gpus_per_task=.inf",
    "output=a\x1bb",
    ".".join("a" * 5000) + "=1",
    "=1",
    "method..lr=1",
    "concepts.0.name=x",
    "seed",
    "",
    "=",
    "seed=\ud800",
    'concepts=[{from: "a\\0b"}]',
    "method.lr=1e400",
    "deepspeed.stage='1'",
    "method.steps=true",
    "output=~nosuchuser/x",
)
