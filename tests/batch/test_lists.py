"""Lists of names as people keep them: read whole and said how, or refused with the line."""

from pathlib import Path

import pytest

from advanchor.batch.lists import Answers, Listed, read_list
from advanchor.batch.sources import SourceError

NAMES = "name,kind\nCézanne,style\nVan Gogh,style\n"


def read(folder: Path, content: str | bytes, name: str = "list.csv", **answers: object) -> Listed:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_list(path, Answers(**answers))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (NAMES.encode("utf-8-sig"), ""),
        (NAMES.encode("utf-16"), "read as UTF-16"),
        (b"\xfe\xff" + NAMES.encode("utf-16-be"), "read as UTF-16"),
        (NAMES.encode("utf-16-le"), "read as UTF-16-LE, by its zero bytes"),
        (NAMES.encode("utf-32"), "read as UTF-32"),
        (NAMES.encode("latin-1"), "read as Windows-1252, line 2 is 'Cézanne,style'"),
        (NAMES.replace(",", ";").replace("\n", "\r\n").encode(), "columns are divided by semicolons"),
        (b"sep=;\r\n" + NAMES.replace(",", ";").encode(), "columns are divided by semicolons"),
        (NAMES.replace(",", "\t").encode("utf-16"), "columns are divided by tabs"),
        (NAMES.replace("\n", "\r").encode(), ""),
    ],
)
def test_every_usual_encoding_gives_the_same_names(data: bytes, note: str, tmp_path: Path) -> None:
    found = read(tmp_path, data)
    assert [concept.name for concept in found.concepts] == ["Cézanne", "Van Gogh"] and not found.problems
    assert note in "; ".join(found.notes) and any("name from 'name', kind from 'kind'" in said for said in found.notes)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PK\x03\x04\x14\x00", "save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0", "an old Excel or Word file"),
        (b"name\n\x00\x01\x02\x03", "has zero bytes"),
        (b"name,kind\n\x81\x8d,style\n", ":2: b'\\x81' is neither UTF-8 nor Windows-1252: say --encoding"),
        (b"", "has no names in it"),
        (b"name,kind\n\n,\n", "has no names in it"),
        (b"Maler,Jahr\nMonet,1840\n", "none of the titles 'Maler', 'Jahr' says where the names are"),
        (b"artist,name,kind\nx,y,style\n", "'artist', 'name' may each be the name: say --column name=artist"),
        (b"name,kind\n" + b"x" * 200_000 + b",style\n", ":2: cannot be read: field larger"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        read(tmp_path, data)
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_the_user_s_encoding_and_column_come_first(tmp_path: Path) -> None:
    data = "Maler,name\nШишкин,17\n".encode("cp1251")
    found = read(tmp_path, data, encoding="cp1251", columns={"name": "Maler"}, kind="style")
    assert [concept.name for concept in found.concepts] == ["Шишкин"] and "not read: 'name'" in found.notes[-1]
    for bad in ({"encoding": "klingon"}, {"encoding": "ascii"}, {"columns": {"name": "Painter"}, "encoding": "cp1251"}):
        with pytest.raises(SourceError):
            read(tmp_path, data, **bad)


def test_one_name_a_line_keeps_its_commas(tmp_path: Path) -> None:
    found = read(tmp_path, "# painters\nSeuss, Dr.\n\n  AC/DC \n", "names.txt", kind="style")
    assert [concept.name for concept in found.concepts] == ["Seuss, Dr.", "AC/DC"]
    assert found.notes == ["one name a line, the first is 'Seuss, Dr.', 1 lines with # left out"]


def test_templates_stand_in_their_columns(tmp_path: Path) -> None:
    found = read(
        tmp_path, "Name;Type;Prompt;Neutral prompt;Similar to\nstar;Object;a {} | a red {};a shape|a red shape;ring\n"
    )
    [concept] = found.concepts
    assert (concept.templates, concept.neutral) == (("a {}", "a red {}"), ("a shape", "a red shape"))
    assert (concept.kind, concept.similar) == ("object", "ring") and "kind 'Object' is taken for object" in found.notes


def test_what_can_mean_two_things_is_a_problem_with_its_lines(tmp_path: Path) -> None:
    rows = [
        "name,kind",
        "Monet,artist",
        "Dali,Artist",
        "Miro,",
        "Ernst,style",
        "Ernst,object",
        f"{'x' * 501},style",
        "a,b,c",
    ]
    found = read(tmp_path, "\n".join([*rows, "Klee,style", "Klee,style"]))
    assert [concept.name for concept in found.concepts] == ["Ernst", "Klee"]
    said = [problem.partition("list.csv:")[2] for problem in found.problems]
    expected = [
        "6: 'Ernst' stands in line 5 already, with another kind or other prompts",
        "7: name: 'xxx",
        "8: has 3 cells under 2 columns: quote a name with a comma",
        "2: kind: 'artist' is not one of style, object, identity, explicit",
        "3: kind: 'Artist' is not one of",
        "4: no kind is given: say --kind style or object",
    ]
    assert len(said) == len(expected) and all(map(str.startswith, said, expected)), said
    assert "line 10 is left out: 'Klee' stands in line 9 already" in found.notes
    told = read(tmp_path, "\n".join(rows[:4]), kind="object", kinds={"artist": "style"})
    assert [concept.kind for concept in told.concepts] == ["style", "style", "object"] and not told.problems


def test_a_mistake_of_many_lines_is_one_line(tmp_path: Path) -> None:
    found = read(tmp_path, "name\n" + "\n".join(f"n{i}" for i in range(9)))
    [problem] = found.problems
    assert problem.endswith("(so in 9 lines: 2, 3, 4, 5, 6, ...)")
