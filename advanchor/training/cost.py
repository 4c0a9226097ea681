"""What methods ask of the denoiser, counted, so that a batch can be estimated before it runs."""

from dataclasses import dataclass

BACKWARD = 2.0  # a backward pass costs about two forwards


@dataclass(frozen=True)
class Cost:
    """Passes of one latent through the denoiser."""

    forwards: float = 0.0
    backwards: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)

    def __rmul__(self, times: float) -> "Cost":
        return Cost(times * self.forwards, times * self.backwards)

    @property
    def equivalents(self) -> float:
        """Forward passes that take as long."""
        return self.forwards + BACKWARD * self.backwards


def sampling(images: float, steps: float) -> Cost:
    """Of images sampled with guidance, which asks twice in every step."""
    return Cost(2 * images * steps)


def predictions(draws: float, *, teacher: float = 0.0, learned: float = 0.0) -> Cost:
    """Of `draws` of x_t: so many predictions of each without a gradient, and so many that are learned from."""
    return Cost(draws * (teacher + learned), draws * learned)
