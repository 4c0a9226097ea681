"""A model card in the Hub's form (README.md): what was erased, how, how it scored, and what it does not promise."""

from collections.abc import Mapping, Sequence

from huggingface_hub import ModelCard, ModelCardData

from advanchor._version import __version__
from advanchor.export.sources import Source

LIMITS = (
    "The scores are those of one run's prompts and scorer; other pictures may differ.",
    "Other wordings, soft prompts, further training or image-to-image may bring a concept back.",
    "The licence and the terms of use of the base model hold for everything derived from it.",
    "Whoever has the base model has the concepts: the erasure protects a service, not the weights of the base.",
)


def score(value: object) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "not evaluated"


def plain(text: str) -> str:
    """A name as text in a Markdown table."""
    return "".join(f"&#{ord(c)};" if c in "|<>[]`*_\\\n" else c for c in text)


def rows(sources: Sequence[Source]) -> list[str]:
    found = [
        "| concept | kind | no longer recognised (UA) | others of its kind (IRA) | other kinds (CRA) |",
        "|---|---|---|---|---|",
    ]
    for source in sources:
        for concept in source.concepts:
            own = source.scores.get(concept.name, {})
            cells = [plain(concept.name), concept.kind, *(score(own.get(key)) for key in ("ua", "ira", "cra"))]
            found.append(f"| {' | '.join(cells)} |")
    return found


def made_of(source: Source) -> list[str]:
    """A paragraph about the files that the base's weights came from, where those are not a pipeline's own."""
    found = source.made_of
    files = [*([found["single_file"]] if "single_file" in found else []), *found.get("loras", [])]
    told = [
        f"{plain(str(file['name']))}{' at scale ' + str(file['scale']) if 'scale' in file else ''} "
        f"(sha256 `{file['sha256']}`)"
        for file in files
    ]
    return [f"The base's weights are made of {', '.join(told)}."] if told else []


def line(name: str, errors: Mapping[str, float]) -> str:
    found = f": {100 * errors[name]:.2f} % off the erasure, as diffusers loads it" if name in errors else ""
    return f"- `{name}`{found}"


def card(
    sources: Sequence[Source],
    files: Sequence[str],
    errors: Mapping[str, float] | None = None,  # by file: of what a loader made of it, where one was asked
    base_license: str | None = None,  # as the base's own card names it, if it is known
) -> ModelCard:
    """The card of exported files."""
    base = sources[0].base
    data = ModelCardData(
        base_model=base if base.count("/") == 1 and not base.startswith((".", "/", "~")) else None,
        license=base_license,
        library_name="diffusers",
        tags=["concept-erasure", "advanchor"],
    )
    methods = sorted({str(method.get("name")) for source in sources for method in source.methods})
    number = sum(len(source.concepts) for source in sources)
    text = [
        f"# {number} {'concept' if number == 1 else 'concepts'} erased from {plain(base)}",
        f"Made by advanchor {__version__} with {', '.join(methods)}.",
        f"The base's digest is `{sources[0].base_digest}`.",
        *made_of(sources[0]),
        "\n".join(rows(sources)),
        "## Files",
        "\n".join(line(name, errors or {}) for name in files),
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(text) + "\n")
