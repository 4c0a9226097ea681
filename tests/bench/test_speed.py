"""The benchmark measures what it says: the authors' schedule to the letter, its own arithmetic by hand."""

import pytest
import torch
from torch import Tensor, nn

from advanchor import methods
from advanchor.bench import authors, shapes, work
from advanchor.bench.speed import Variant, markdown, run_processes, summary, variants
from advanchor.bench.trial import LEVERS, VARIANTS, Measured, Trial, count_rows
from advanchor.bench.work import Work
from advanchor.concepts import Concept
from advanchor.methods.adv_anchor import Anchor, Settings
from advanchor.models.base import Base
from advanchor.training.context import Context
from advanchor.training.delta import Delta
from advanchor.training.engine import TorchEngine

STEPS, ANCHOR_STEPS = 2, 3
SETTINGS = Settings(
    trained_weights="cross_attention", steps=STEPS, anchor_steps=ANCHOR_STEPS, batch_size=1, num_latents=2,
    latent_steps=2, lr=1e-3,
)  # fmt: skip


def erase_as_the_authors_do(context: Context) -> tuple[dict[str, Tensor], nn.Module, dict[str, float]]:
    latents = context.latents(SETTINGS)
    context.delta.detach()
    student, rows = authors.second_unet(context.base.backbone), {}
    count_rows(context.base.backbone, rows, lambda: "to_all_weights_checkpointed")
    count_rows(student, rows, lambda: "to_all_weights_checkpointed")
    return authors.erase(context, student, SETTINGS, context.batches(SETTINGS, latents)), student, rows


def test_the_authors_schedule_takes_its_forwards_and_backwards(context: Context) -> None:
    """Per image 3 * anchor_steps + 4 forwards and anchor_steps + 1 backward passes, each through two of them."""
    _, _, rows = erase_as_the_authors_do(context)
    assert rows["forward"] == STEPS * (3 * ANCHOR_STEPS + 4)
    assert rows["to_all_weights_checkpointed"] == STEPS * 2 * (ANCHOR_STEPS + 1)
    assert 51 * (3 * 30 + 4) == 4794 and 51 * (30 + 1) == 1581


def test_with_gradients_zeroed_both_schedules_find_the_same_delta(base: Base, concept: Concept) -> None:
    """So what makes ours faster changes no number; what else differs is that theirs adds all gradients up."""
    delta = Delta(base.backbone, "cross_attention")
    context = Context(base, TorchEngine(base.backbone, delta.named_parameters()), delta, [concept], [0])
    settings = SETTINGS.model_copy(update={"reset_anchor_optimizer": True, "anchor_lr": 1e-2})
    (ours,) = methods.erase(context, settings)
    latents = context.latents(settings)
    delta.detach()
    theirs, added_up = (
        authors.erase(
            context, authors.second_unet(base.backbone), settings, context.batches(settings, latents), zeroed=zeroed
        )
        for zeroed in (True, False)
    )

    def difference(a: dict[str, Tensor]) -> float:
        squares = [
            ((a[name] - ours.delta[name]).square().sum(), ours.delta[name].square().sum()) for name in ours.delta
        ]
        return float(sum(d for d, _ in squares) / sum(n for _, n in squares)) ** 0.5

    assert theirs.keys() >= ours.delta.keys()
    assert difference(theirs) < 1e-2 < difference(added_up)


def test_both_unets_of_the_authors_are_open_and_only_cross_attention_changes(context: Context) -> None:
    state = context.base.backbone.state_dict()
    before = {k.replace(".base.", "."): tensor.clone() for k, tensor in state.items() if "delta_" not in k}
    deltas, student, _ = erase_as_the_authors_do(context)
    teacher = dict(context.base.backbone.named_parameters())
    assert all(torch.equal(teacher[name], before[name]) for name in before)
    assert all(parameter.grad is not None for name, parameter in teacher.items() if "attn2.to_k" in name)
    assert teacher["conv_out.weight"].grad is not None and teacher["conv_out.weight"].grad.any()
    assert deltas.keys() == {name for name in before if "attn2" in name} and any(d.any() for d in deltas.values())
    assert student.get_parameter("conv_out.weight").grad is not None
    changed = {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all("attn2" in name for name in changed)


def test_masked_concepts_stay_in_the_batch_and_take_no_steps(
    base: Base, concept: Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first concept's neutral prompts are its own, so that its loss is 0 from the start."""
    found, same = {}, concept.model_copy(update={"neutral": tuple(t.format(concept.name) for t in concept.templates)})
    settings = SETTINGS.model_copy(update={"trained_weights": "cross_attention_kv", "anchor_lr": 1e-2})
    monkeypatch.setattr(Anchor, "search", Anchor.search)  # and back, when masked() has changed it
    for lever in (lambda _: None, LEVERS["stopped concepts masked"]):
        lever(base)
        delta, rows = Delta(base.backbone, "cross_attention_kv", slots=2), []
        context = Context(base, TorchEngine(base.backbone, delta.named_parameters()), delta, [same, concept], [0, 1])
        handle = base.backbone.register_forward_pre_hook(lambda module, given, rows=rows: rows.append(len(given[0])))
        found[len(found)] = methods.erase(context, settings), rows
        handle.remove()
        delta.detach()
    (dropped, fewer), (masked, more) = found.values()
    assert sum(more) == sum(fewer) + STEPS * (ANCHOR_STEPS - 1)
    for a, b in zip(dropped, masked, strict=True):
        assert a.e_adv is not None and b.e_adv is not None
        torch.testing.assert_close(a.e_adv, b.e_adv)


def test_published_shapes_have_their_published_sizes() -> None:
    sizes = {"sd14": 859_520_964, "sdxl": 2_567_463_684}  # numbers of weights of the UNets
    for name, size in sizes.items():
        assert sum(parameter.numel() for parameter in work.empty_unet(name, None).parameters()) == size
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in shapes.text_encoder().parameters()) == 123_060_480


def test_a_picture_of_the_schedule_costs_a_quarter_at_stable_diffusions_shapes() -> None:
    """Thirty anchor steps of which none ends early: what docs/speed.md says of both, with checkpoints and without."""
    counted = work.count("sd14", 8)
    ours = counted.equivalents({"forward": 35, "to_embeddings": 30, "to_delta": 2})
    kept, checkpointed = (
        counted.equivalents({"forward": 94, kind: 62}) for kind in ("to_all_weights", "to_all_weights_checkpointed")
    )
    assert (round(ours), round(kept), round(checkpointed)) == (67, 218, 265)
    assert (round(ours / checkpointed, 2), round(ours / kept, 2)) == (0.25, 0.31)


def test_work_is_counted_in_forwards_of_one_row() -> None:
    counted = Work(forward=10, to_embeddings=11, to_all_weights=20, to_all_weights_checkpointed=30, to_delta=12)
    # (10 * 10 + 4 * 11 + 2 * 12) / 10
    assert counted.equivalents({"forward": 10, "to_embeddings": 4, "to_delta": 2}) == pytest.approx(16.8)


def test_backward_passes_cost_what_they_should() -> None:
    counted = work.count("pocket")
    assert 0.9 < counted.to_embeddings / counted.forward < 1.2
    assert 1.9 < counted.to_all_weights / counted.forward < 2.1  # activations and all weights
    assert 2.6 < counted.to_all_weights_checkpointed / counted.forward < 3.0  # and the blocks once more


def test_a_row_of_the_table_by_hand() -> None:
    """Two processes of two concepts: the slower one counts; the median of 8, 10 and 30 s is 10 s, 2.5 s a concept."""
    trial = Trial("ours", "pocket", concepts=2)
    variant = Variant("pairs", (trial, trial))

    def measured(train_s: float) -> Measured:
        return Measured(2, 1.0, 2.0, 4.0, train_s, 6.0, train_s / 2, {"forward": 20.0}, 100.0, 4e9)

    rounds = [[measured(slow), measured(1.0)] for slow in (30.0, 8.0, 10.0)]
    counted = Work(forward=1e9, to_embeddings=0, to_all_weights=0, to_all_weights_checkpointed=0, to_delta=0)
    row = summary(variant, rounds, counted, first_rate=144.0)
    assert (row.concepts, row.processes, row.train_s, row.concepts_per_hour, row.ratio) == (4, 2, 2.5, 1440, 10)
    assert (row.forwards, row.equivalents, row.peak_mb, row.outside, row.latents_s) == (10, 10, 200, 0.5, 2)
    assert row.cpu_s == 3  # two processes of 6 s, four concepts
    assert row.of_peak == pytest.approx(10 * 1e9 / 2.5 / 4e9)
    assert "| pairs | 2 x 1 |" in markdown([row])


def test_the_variants_differ_in_what_they_say_and_nothing_else() -> None:
    trial = Trial("ours", "pocket", threads=2)
    a, kept, b, c, d = variants(trial, pack=4, processes=2)
    assert [v.trials[0].variant for v in (a, kept, b, c, d)] == [*VARIANTS[:2], "ours", "ours", "ours"]
    assert [v.concepts for v in (a, kept, b, c, d)] == [1, 1, 1, 4, 8]
    assert [t.first for t in d.trials] == [0, 4] and all(t.threads == 1 for t in d.trials)
    assert all(each.settings() == trial.settings() for v in (a, kept, b, c, d) for each in v.trials)


@pytest.mark.parametrize("variant", ["authors", "ours"])
def test_a_measurement_counts_the_rows_of_its_own_variant(variant: str) -> None:
    trial = Trial(variant, "pocket", steps=1, anchor_steps=2, num_latents=2, latent_steps=1)
    (found,) = run_processes([trial])
    assert found.rows["forward"] == (2 * 3 + 4 if variant == "authors" else 2 + 2 + 1 + 2)
    assert 0 < found.models_s < found.train_s and found.peak_mb > 0 and found.matmul_flops > 0
