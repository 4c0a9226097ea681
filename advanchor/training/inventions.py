"""Names that nobody has: mixtures of token embeddings around the names that are erased.

A student that is trained on hundreds of names and on known prompts alone forgets names that it was not told of. What
it should keep of the space between them can be asked of the teacher without knowing any: replace tokens of an erased
name by mixtures of others with each other and with themselves,

    v_j = share x_a + (1 - share) x_b      x: token embeddings; b: any token of the vocabulary; a: another, or token j

and whatever the teacher draws for that, the student shall draw. An invention that the teacher takes for the very
concept it was made from is one more wording of that concept (`likeness`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from advanchor.concepts import Concept
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning, join
from advanchor.models.encoders import TextEncoder, deviation, table
from advanchor.models.encoding import CHUNK
from advanchor.models.text import Prompt, fill

LETTERS = 3  # a token of fewer letters is no word's part worth asking for
KEPT = 0.5  # how often a token of a name stays
TOWARDS_OWN = 0.5  # how often a mixture is with the token that it replaces
ASKED = 32  # inventions that the teacher is asked about at a time
FIRST = 0.8  # of the schedule: where the teacher is asked what it takes an invention for


class Inventions:
    """Prompts of erased concepts' templates with invented names in the place of the concepts'."""

    def __init__(self, base: Base, concepts: Sequence[Concept], without: Sequence[str] = (), most: float = 0.5) -> None:
        """without: names whose tokens nothing is made of; most: the largest share of an erased token in a mixture."""
        self.base, self.most = base, most
        self.prompts: list[Prompt] = [fill(template, c.name) for c in concepts for template in c.templates]
        self.owners = [number for number, c in enumerate(concepts) for _ in c.templates]
        names = [concept.name for concept in concepts]
        self.tables = [table(encoder, self.prompts) for encoder in base.encoders]
        self.vocabularies = [usable(encoder, [*names, *without]) for encoder in base.encoders]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Conditioning, Tensor]:
        """Embeddings of `count` inventions, and the rows (count,) of `prompts` that they were made from."""
        rows = torch.randint(len(self.prompts), (count,), generator=generator)
        places = max(int(own.max()) for own in self.tables) + 1
        chances = torch.rand(count, places, 5, generator=generator)
        parts = [self.shift(number, rows, chances) for number in range(len(self.tables))]
        widest = max(part.shape[-1] for part in parts)
        shift, found = torch.cat([F.pad(part, (0, widest - part.shape[-1])) for part in parts], 1), []
        with torch.no_grad():
            for some in torch.arange(count).split(CHUNK):
                prompts = [self.prompts[row] for row in rows[some].tolist()]
                found.append(self.base.encode(prompts, token_shift=shift[some].to(self.base.device)))
        return join(*found), rows

    def shift(self, number: int, rows: Tensor, chances: Tensor) -> Tensor:
        """What is added to one encoder's token embeddings, (count, its length, its width).

        rows: (count,) of `prompts`; chances: (count, places, 5), uniform: what becomes of each token of a name.
        """
        encoder, place = self.base.encoders[number], self.tables[number][rows]  # (count, length), -1 beside the name
        weight = encoder.embedding.weight.detach().float().cpu()  # type: ignore[union-attr, operator]
        ids = encoder.tokens([self.prompts[row].text for row in rows.tolist()]).input_ids.cpu()
        own = weight[ids]  # (count, length, width)
        there = place >= 0
        moves = there & (chances[..., 0] >= KEPT).gather(1, place.clamp_min(0))
        last = place == place.max(1, keepdim=True).values
        moves |= last & there & ~moves.any(1, keepdim=True)
        words = self.vocabularies[number]
        picked = (chances.gather(1, place.clamp_min(0).unsqueeze(-1).expand(-1, -1, chances.shape[-1]))).unbind(-1)
        one, two = (weight[words[(chance * len(words)).long()]] for chance in picked[1:3])
        towards = (picked[3] < TOWARDS_OWN).unsqueeze(-1)
        share = picked[4].unsqueeze(-1) * torch.where(towards, self.most, 1.0)
        mixture = share * torch.where(towards, own, one) + (1 - share) * two
        ratio = 1.0 if number == 0 else deviation(encoder) / self.base.token_deviation
        return torch.where(moves.unsqueeze(-1), mixture - own, 0.0) / ratio


@torch.no_grad()
def likeness(base: Base, invented: Conditioning, e_c: Conditioning, e_a: Conditioning, seed: int) -> Tensor:
    """(rows,): how far an invention is from the concept to the teacher, relative to the anchor; 0: it is the concept.

    | eps0(x_t, e) - eps0(x_t, e_c) |^2 / | eps0(x_t, e_a) - eps0(x_t, e_c) |^2 at one noise each.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for some in torch.arange(len(invented)).split(ASKED):
        x = torch.randn(len(some), *base.latent_shape, generator=generator).to(base.device)
        t = base.schedule.draw((1,), generator, FIRST).expand(len(some)).to(base.device)
        own, concept, anchor = (base.predict(base.backbone, x, t, e.rows(some)) for e in (invented, e_c, e_a))
        gap = (anchor - concept).flatten(1).square().sum(1).clamp_min(1e-12)
        found.append((own - concept).flatten(1).square().sum(1) / gap)
    return torch.cat(found).cpu()


def usable(encoder: TextEncoder, without: Sequence[str]) -> Tensor:
    """Ids of an encoder's tokens that are made of letters, but for those that these names are made of."""
    tokenizer = encoder.tokenizer
    special = {*tokenizer.all_special_ids}
    taken = {number for name in without for text in (name, f" {name}") for number in tokenizer(text).input_ids}
    found = [
        number
        for text, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        if number not in special and number not in taken and is_word(text)
    ]
    return torch.tensor(found or [number for number in range(len(tokenizer)) if number not in special])


def is_word(token: str) -> bool:
    letters = token.removesuffix("</w>").strip("▁Ġ")
    return len(letters) >= LETTERS and letters.isalpha()
