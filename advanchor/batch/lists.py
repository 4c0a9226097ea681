"""Lists of names as people keep them: tables and plain lines, of any usual encoding, whatever their columns are called.

Nothing is guessed in silence: what was understood is noted, and what can mean two things is a problem with its line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from advanchor.batch.encodings import decoded
from advanchor.batch.sources import MAX_TABLE, SourceError, read_bytes
from advanchor.batch.table import concept_problems, numbered
from advanchor.concepts import KINDS, Concept
from advanchor.messages import choice, quoted, shown
from advanchor.models.vocabulary import words

DIVIDERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
REMARK = "#"  # a line of a plain list that begins so is for people
SEVERAL = "|"  # stands between the prompts of one cell; so does a line break
MOST_NAMED = 5  # lines of one problem
TITLES: dict[str, tuple[str, ...]] = {  # what a column of each field may be called, in the words of `vocabulary.words`
    "name": (
        "name", "names", "concept", "concepts", "concept name", "artist", "artists", "artist name", "full name",
        "person", "people", "character", "characters", "term", "terms", "keyword", "keywords",
        "nom", "nombre", "nome", "kunstler", "artiste", "artista",
    ),
    "kind": ("kind", "kinds", "type", "category", "class", "concept kind", "concept type", "typ", "kategorie", "tipo"),
    "similar": ("similar", "similar to", "similar concept", "most similar", "close to", "neighbour", "neighbor"),
    "templates": ("template", "templates", "prompt", "prompts", "prompt template", "prompt templates"),
    "neutral": ("neutral", "neutral prompt", "neutral prompts", "neutral template", "neutral templates", "superclass"),
}  # fmt: skip
FIELD_OF = {title: name for name, titles in TITLES.items() for title in titles}
WORDS: dict[str, str] = {  # what a kind may be called in a cell; "artist" may be a style or a person
    "style": "style", "styles": "style", "art style": "style", "art styles": "style", "artistic style": "style",
    "object": "object", "objects": "object", "thing": "object", "things": "object",
    "identity": "identity", "identities": "identity", "person": "identity", "persons": "identity",
    "people": "identity", "celebrity": "identity", "celebrities": "identity", "face": "identity", "faces": "identity",
    "explicit": "explicit", "nsfw": "explicit", "nudity": "explicit",
}  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """What the user says about a list, where it does not say so itself."""

    kind: str = ""  # of all that have none
    kinds: Mapping[str, str] = field(default_factory=dict)  # what a word of the list's means: {"artist": "style"}
    columns: Mapping[str, str] = field(default_factory=dict)  # the title of a field's column: {"name": "Maler"}
    encoding: str = ""


@dataclass
class Listed:
    """What was understood of a list."""

    path: Path
    concepts: list[Concept] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for people: how the list was read
    problems: list[str] = field(default_factory=list)  # file:line: what

    def problem(self, lines: Sequence[int], what: str) -> None:
        """One mistake, however many lines have it."""
        more = f" (so in {len(lines)} lines: {', '.join(map(str, lines[:MOST_NAMED]))}" if len(lines) > 1 else ""
        more += (", ...)" if len(lines) > MOST_NAMED else ")") if more else ""
        self.problems.append(f"{shown(self.path)}:{lines[0]}: {what}{more}")


Row = tuple[int, list[str]]  # line, cells


def read_list(path: Path, answers: Answers) -> Listed:
    """The concepts of a list; what keeps a line from being one is in `problems`.

    Raises SourceError, in one line, for a file that is no list.
    """
    found = Listed(path)
    text, note = decoded(read_bytes(path, MAX_TABLE, regular=True), path, answers.encoding)
    found.notes += [note] if note else []
    columns, rows = table_of(text, found, answers.columns)
    if not rows:
        raise SourceError(f"{shown(path)}: has no names in it")
    read_rows(columns, rows, found, answers)
    return found


# --- which cell is what


def table_of(text: str, found: Listed, columns: Mapping[str, str]) -> tuple[list[str], list[Row]]:
    """The field of every column ("" for one that is not read), and the rows below the titles."""
    first = first_line(text)
    divider = divider_of(first, columns)
    told = first.strip('\r\n"').casefold()
    if told.startswith("sep=") and told[4:] in DIVIDERS:  # Excel's own mark; its line stays, so that others keep theirs
        text, divider = text.replace(first, "", 1), told[4:]
        first = first_line(text)
    [(_, head)] = list(numbered(first, found.path, divider))[:1] or [(1, [""])]
    titled = any(field_of(title, columns) for title in head)
    if not titled and (found.path.suffix.lower() not in (".csv", ".tsv") or len(head) == 1):
        return plain_lines(text, found, columns)
    (line, head), *rows = numbered(text, found.path, divider)
    if len(head) > 1 and divider != ",":
        found.notes.append(f"columns are divided by {DIVIDERS[divider]}")
    return fields_of(head, line, found, columns), [row for row in rows if any(cell.strip() for cell in row[1])]


def first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def divider_of(first: str, columns: Mapping[str, str]) -> str:
    """What stands between the titles of the first line: with it most of them are known, or there are most of them."""

    def worth(divider: str) -> tuple[int, int]:
        cells = first.split(divider)
        return sum(bool(field_of(cell.strip(' "'), columns)) for cell in cells), len(cells)

    return max(DIVIDERS, key=worth)


def field_of(title: str, columns: Mapping[str, str]) -> str:
    """The field that a title stands for; empty if it is not known. What the user says comes first."""
    for name, own in columns.items():
        if title.strip() == own:
            return name
    known = FIELD_OF.get(" ".join(words(title.replace("_", " "))), "")
    return "" if known in columns else known


def plain_lines(text: str, found: Listed, columns: Mapping[str, str]) -> tuple[list[str], list[Row]]:
    """One name a line, commas and all."""
    if columns:
        title = next(iter(columns.values()))
        raise SourceError(f"{shown(found.path)}: has no column {quoted(title)}")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = [(number, [line.strip('"')]) for number, line in lines if not line.startswith(REMARK)]
    remarks = f", {len(lines) - len(rows)} lines with # left out" if len(lines) > len(rows) else ""
    if rows:
        found.notes.append(f"one name a line, the first is {quoted(rows[0][1][0])}{remarks}")
    return ["name"], rows


def fields_of(head: Sequence[str], line: int, found: Listed, columns: Mapping[str, str]) -> list[str]:
    """The field of every column. Raises SourceError where two columns want to be one, or none is the name."""
    titles = [title.strip() for title in head]
    where = f"{shown(found.path)}:{line}"
    for name, title in columns.items():
        if titles.count(title) != 1:
            times = "has no column" if title not in titles else "has more than one column"
            raise SourceError(f"{where}: {times} {quoted(title)} for {name}; there are {listed(titles)}")
    fields = [field_of(title, columns) for title in titles]
    for name in TITLES:
        own = [title for title, known in zip(titles, fields, strict=True) if known == name]
        if len(own) > 1:
            raise SourceError(f"{where}: {listed(own)} may each be the {name}: say --column {name}={own[0]}")
    if "name" not in fields:
        raise SourceError(
            f"{where}: none of the titles {listed(titles)} says where the names are: say --column name=TITLE, or "
            "write the line name,kind on top"
        )
    taken = [f"{name} from {quoted(title)}" for title, name in zip(titles, fields, strict=True) if name]
    left = [title for title, name in zip(titles, fields, strict=True) if not name and title]
    found.notes.append(", ".join(taken) + (f"; not read: {listed(left)}" if left else ""))
    return fields


def listed(titles: Sequence[str]) -> str:
    return ", ".join(map(quoted, titles))


# --- rows


def read_rows(columns: Sequence[str], rows: Sequence[Row], found: Listed, answers: Answers) -> None:
    """Make every row a concept, or say why it is none."""
    unknown: dict[str, list[int]] = {}  # words that are no kind -> lines
    first: dict[str, tuple[int, Concept]] = {}
    meant: dict[str, str] = {}
    for line, cells in rows:
        if len([cell for cell in cells[len(columns) :] if cell.strip()]):
            found.problem([line], f"has {len(cells)} cells under {len(columns)} columns: quote a name with a comma")
            continue
        values = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
        word = values.pop("kind", "")
        if not (kind := kind_of(word, answers)):
            unknown.setdefault(word, []).append(line)
            continue
        meant |= {word: kind} if word and word != kind else {}
        fields = {"name": values.pop("name", ""), "kind": kind, "similar": values.pop("similar", "")}
        fields |= {name: prompts(cell) for name, cell in values.items()}
        if wrong := concept_problems(fields):
            for problem in wrong:
                found.problem([line], problem)
            continue
        add(line, Concept.model_validate(fields), first, found)
    found.concepts = [concept for _, concept in first.values()]
    found.notes += [f"kind {quoted(word)} is taken for {kind}" for word, kind in meant.items()]
    for word, lines in unknown.items():
        found.problem(lines, kind_problem(word))


def add(line: int, concept: Concept, first: dict[str, tuple[int, Concept]], found: Listed) -> None:
    """The same line again is left out; the same name as something else is a problem."""
    before = first.setdefault(concept.name, (line, concept))
    if before[0] == line:
        return
    again = f"{quoted(concept.name)} stands in line {before[0]} already"
    if before[1] == concept:
        found.notes.append(f"line {line} is left out: {again}")
    else:
        found.problem([line], f"{again}, with another kind or other prompts")


def kind_of(word: str, answers: Answers) -> str:
    """Empty where nobody says what a word means."""
    if not word:
        return answers.kind
    plain = " ".join(words(word))
    own = {" ".join(words(key)): kind for key, kind in answers.kinds.items()}
    return own.get(plain) or WORDS.get(plain, "")


def kind_problem(word: str) -> str:
    if not word:
        return f"no kind is given: say --kind {' or '.join(KINDS)} for all that have none"
    return f"kind: {choice(word, KINDS)}: say what it means, for example --kind {quoted(word + '=style')}"


def prompts(cell: str) -> tuple[str, ...]:
    """The prompts of one cell."""
    parts = (part.strip() for line in cell.splitlines() for part in line.split(SEVERAL))
    return tuple(part for part in parts if part)
