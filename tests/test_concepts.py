"""Names in every script that is printed, and in nothing else."""

import copy
import pickle

import pytest
from pydantic import ValidationError

from advanchor.concepts import Concept

ACCEPTED = {
    "no-break space": "Van\u00a0Gogh",
    "ideographic space": "葛飾\u3000北斎",
    "Persian, with a non-joiner": "می\u200cروم",
    "emoji joined": "\N{WOMAN}\u200d\N{ROCKET}",
    "the flag of Wales": "\N{WAVING BLACK FLAG}\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    "combining marks": "Ce\u0301zanne",
    "Hindi": "क्‍ष",
    "a quote": 'quo"te',
}
REFUSED = {
    "a line break": ("a\nb", "U+000A"),
    "escape": ("a\x1bb", "U+001B"),
    "NUL": ("a\x00b", "U+0000"),
    "C1": ("a\x9bb", "U+009B"),
    "right-to-left override": ("a\u202eb", "U+202E RIGHT-TO-LEFT OVERRIDE"),
    "an isolate": ("a\u2066b", "U+2066 LEFT-TO-RIGHT ISOLATE"),
    "zero width space": ("a\u200bb", "U+200B ZERO WIDTH SPACE"),
    "byte order mark": ("\ufeffa", "U+FEFF"),
    "line separator": ("a\u2028b", "U+2028 LINE SEPARATOR"),
    "private use": ("a\ue000b", "U+E000"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_name_that_is_printed(case: str) -> None:
    assert Concept(name=ACCEPTED[case], kind="object").name == ACCEPTED[case]


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("field", ["name", "similar"])
def test_a_name_that_is_not(case: str, field: str) -> None:
    name, character = REFUSED[case]
    given = {"name": "star", "kind": "object"} | {field: name}
    with pytest.raises(ValidationError, match="has an unprintable character") as caught:
        Concept.model_validate(given)
    said = caught.value.errors()[0]["msg"]
    assert character in said and said.isprintable()


@pytest.mark.parametrize("name", [" ", "\u00a0", "\u200d", "\u200c \u3000"])
def test_a_blank_name(name: str) -> None:
    with pytest.raises(ValidationError, match="is blank"):
        Concept(name=name, kind="object")


@pytest.mark.parametrize("text", ["{} \ud800", "{} \x1b[31m", "{} \u202e"])
def test_prompts_and_attributes_are_printed_too(text: str) -> None:
    with pytest.raises(ValidationError):
        Concept(name="star", kind="object", templates=(text,), neutral=("a",))
    with pytest.raises(ValidationError):
        Concept(name="star", kind="object", attributes={text: 1.0})
    assert Concept(name="star", kind="object", templates=("a {}\n",), neutral=("a",))


def test_a_concept_takes_its_fields_by_name() -> None:
    with pytest.raises(TypeError, match=r"Concept\(name='Van Gogh', kind='style'\)"):
        Concept("a", "style")  # type: ignore[call-arg]
    concept = Concept(name="a", kind="style")
    assert copy.deepcopy(concept) == pickle.loads(pickle.dumps(concept)) == concept
