"""One student of all concepts: what it learns, what it keeps, and where it goes on."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from fusing import RETAIN, by, close

from advanchor.concepts import Concept
from advanchor.fusion.fuse import fuse, plan_fusion
from advanchor.fusion.make import Wanted, make
from advanchor.fusion.member import FusionError, Workshop
from advanchor.fusion.ways import FusionSettings
from advanchor.models.base import Base
from advanchor.training import distillation
from advanchor.training.distillation import DistillSettings, learning_rate
from advanchor.training.inventions import Inventions, likeness
from advanchor.training.student import Student, weight_names

STAR = Concept(name="star", kind="object", templates=("a {}", "a red {}"), neutral=("a shape", "a red shape"))


def distilled(run: Path, base: Base, workshop: Workshop | None = None, **changes: Any) -> dict[str, torch.Tensor]:
    return fuse(plan_fusion([str(run)], by("distill", **changes), RETAIN), base, workshop=workshop).delta


def test_it_learns_and_says_how_far_it_is(run: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "EVERY", 10)
    said: list[str] = []
    distilled(run, base, Workshop(say=said.append), steps=30, lr=1e-3, batch_size=8)
    first, *_, last = (float(text.partition("loss ")[2].partition(",")[0]) for text in said)
    assert last < 0.9 * first
    assert said[-1].startswith("distill: step 30 of 30, loss ") and said[-1].endswith(", 0 min left")


def test_it_starts_from_the_closed_form(run: Path, base: Base) -> None:
    """One step at a rate of next to nothing leaves what anchor_edit makes of neutral anchors, and 0 elsewhere."""
    delta = distilled(run, base, steps=1, lr=1e-12, average=0, start="closed_form")
    readers = {name: dw for name, dw in delta.items() if name in weight_names(base.backbone, "readers")}
    others = {name: dw for name, dw in delta.items() if name not in readers}
    assert all(dw.any() for dw in readers.values())
    assert max(float(dw.abs().max()) for dw in others.values()) < 1e-9
    assert not close(delta, distilled(run, base, steps=1, lr=1e-12, average=0))


@pytest.mark.parametrize("trained", ["readers", "cross_attention", "denoiser"])
def test_only_the_weights_that_are_asked_for_change(run: Path, base: Base, trained: str) -> None:
    delta = distilled(run, base, trained_weights=trained)
    assert list(delta) == weight_names(base.backbone, trained)
    assert all(change.any() for name, change in delta.items() if name.endswith("attn2.to_v.weight"))


def test_the_student_is_the_base_until_it_learns(base: Base) -> None:
    student = Student(base.backbone, "denoiser")
    noise, times = torch.randn(2, *base.latent_shape), torch.tensor([100, 900])
    told = base.encode(["a star", "a shape"])
    with torch.no_grad():
        own, teacher = (base.predict(module, noise, times, told) for module in (student, base.backbone))
    assert torch.equal(own, teacher)
    assert student.names == [name for name, _ in base.backbone.named_parameters()]


def test_it_goes_on_from_its_checkpoint_with_the_same_numbers(
    run: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "EVERY", 2)
    whole = distilled(run, base, steps=5)
    said: list[str] = []

    def interrupted(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            raise KeyboardInterrupt

    workshop = Workshop(tmp_path, interrupted)
    with pytest.raises(KeyboardInterrupt):
        distilled(run, base, workshop, steps=5)
    assert close(distilled(run, base, workshop, steps=5), whole, 0)
    assert [text.partition(", loss")[0] for text in said] == [f"distill: step {n} of 5" for n in (2, 4, 5)]
    assert close(distilled(run, base, workshop, steps=5), whole, 0) and len(said) == 3  # all is in the checkpoint


def test_a_checkpoint_of_another_training_is_left_alone(run: Path, base: Base, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    distilled(run, base, workshop, steps=2)
    assert close(distilled(run, base, workshop, steps=3), distilled(run, base, steps=3), 0)
    (tmp_path / "distill.pt").write_bytes(b"cut")
    assert close(distilled(run, base, workshop, steps=2), distilled(run, base, steps=2), 0)


def test_repairs_are_refused_before_anything_is_trained(run: Path, tmp_path: Path) -> None:
    tuned: Any = nullcontext
    with pytest.raises(FusionError, match=r"--repair .* teaches one student all of them"):
        make(Wanted([str(run)], by("distill")), tmp_path / "out", print, tuned)
    assert not list(tmp_path.iterdir())


def test_inventions_stand_where_the_name_stands_and_differ_from_it(base: Base) -> None:
    inventions = Inventions(base, [STAR])
    told, rows = inventions.draw(20, torch.Generator().manual_seed(0))
    own = base.encode([inventions.prompts[row] for row in rows.tolist()])
    same = (told.prompt_embeds - own.prompt_embeds).abs().amax(-1) < 1e-5
    first = (base.concept_tokens([inventions.prompts[row] for row in rows.tolist()]) >= 0).int().argmax(1)
    assert all(same[i, : first[i]].all() and not same[i, first[i] :].any() for i in range(20))
    again, _ = inventions.draw(20, torch.Generator().manual_seed(0))
    assert torch.equal(told.prompt_embeds, again.prompt_embeds)


def test_nothing_is_made_of_names_that_are_hidden(base: Base) -> None:
    (open_words,), (words,) = (Inventions(base, [STAR], hidden).vocabularies for hidden in ((), ("circle",)))
    circle = base.encoders[0].tokenizer("circle").input_ids[1]
    assert circle in open_words and circle not in words


def test_a_concept_is_like_itself_and_unlike_its_anchor(base: Base) -> None:
    e_c, e_n = base.encode(["a star", "a red star"]), base.encode(["a shape", "a red shape"])
    assert likeness(base, e_c, e_c, e_n, 0).tolist() == [0, 0]
    assert likeness(base, e_n, e_c, e_n, 0).tolist() == pytest.approx([1, 1])


def test_the_rate_rises_and_falls() -> None:
    settings = DistillSettings(steps=100, lr=1.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert max(rates) == pytest.approx(1, abs=0.02) and rates[0] < 0.2 and rates[-1] < 0.01
    assert rates.index(max(rates)) in (4, 5)


def test_shares_that_leave_nothing_for_retained_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="leave nothing for retained prompts"):
        FusionSettings.model_validate({"distill": {"erased_share": 0.6, "invented_share": 0.4}})
