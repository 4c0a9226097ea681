"""Every supported pipeline, tiny and random: it samples as itself, and all that the methods build on holds for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import QUICK_ANCHOR
from tiny import base_of
from torch import Tensor, nn

from advanchor import api, models
from advanchor.concepts import Concept
from advanchor.methods import adv_anchor, uce
from advanchor.models import weightless
from advanchor.models.base import Base
from advanchor.models.conditioning import Conditioning
from advanchor.models.flow import patches, whole
from advanchor.models.readers import linear_names
from advanchor.models.sampling import initial_noise, sample_latents
from advanchor.models.text import fill
from advanchor.training.delta import Delta
from advanchor.training.projection import constrained_inverse, gram, with_ridge

SMALL: dict[str, Any] = {"height": 64, "width": 64, "guidance_scale": 3.0}
CALLS: dict[str, dict[str, Any]] = {  # how each pipeline is asked for a picture of the tiny size
    "sdxl": SMALL,
    "sd35": SMALL,
    "sd3_without_t5": SMALL,
    "flux_dev": SMALL,
    "flux_schnell": SMALL | {"max_sequence_length": 256},
    "pixart": SMALL | {"use_resolution_binning": False, "clean_caption": False},
    "sana": SMALL | {"height": 32, "width": 32, "use_resolution_binning": False, "clean_caption": False},
    "flux2_klein": SMALL | {"text_encoder_out_layers": (1, 2, 3), "max_sequence_length": 64},
    "flux2_dev": SMALL | {"text_encoder_out_layers": (1, 2, 3), "max_sequence_length": 400},
    "qwen_image": {"height": 64, "width": 64, "true_cfg_scale": 3.0, "negative_prompt": ["", ""]},
    "z_image": SMALL,
}
TEXTS = ["a red star in the style of Van Gogh", "painting by Mona Lisa of a dog"]
CONCEPT = Concept(
    name="Van Gogh",
    kind="style",
    templates=("{}", "a red star in the style of {} with a dog", "{} near a tree"),
    neutral=("a painting", "a red star in the style of a painting with a dog", "a painting near a tree"),
)
every_base = pytest.mark.parametrize("name", CALLS)


def own_latents(base: Base, name: str, noise: Tensor) -> Tensor:
    """What the pipeline itself makes of this noise, in our shape."""
    packed = name in ("flux_dev", "flux_schnell", "qwen_image")
    given = patches(noise) if packed else noise
    found = base.pipeline(
        prompt=list(TEXTS), num_inference_steps=4, latents=given.clone(), output_type="latent", **CALLS[name]
    )[0]
    if packed:
        return whole(found, *noise.shape[-2:])
    if name == "flux2_dev":
        return found.transpose(1, 2).reshape(noise.shape)
    if name == "flux2_klein":  # whose "latent" is denormalised and unpatched
        norm, epsilon = base.vae.bn, base.vae.config.batch_norm_eps
        mean, variance = norm.running_mean.view(1, -1, 1, 1), norm.running_var.view(1, -1, 1, 1)
        return (base.pipeline._patchify_latents(found) - mean) / (variance + epsilon).sqrt()
    return found


@every_base
def test_samples_and_decodes_as_its_own_pipeline(name: str) -> None:
    base = base_of(name)
    noise, guidance = initial_noise(base.latent_shape, [1, 2]), 3.0
    with torch.no_grad():
        null = base.unconditional()
        found = sample_latents(
            base, base.backbone, noise, base.encode(TEXTS), null, num_steps=4, guidance=guidance, solver="own"
        )
        expected = own_latents(base, name, noise)
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)
        pictures = base.decode(found)
        if name in ("sdxl", "sd35", "flux_dev", "pixart", "sana", "flux2_klein", "qwen_image", "z_image"):
            given = patches(noise) if name in ("flux_dev", "qwen_image") else noise
            own = base.pipeline(
                prompt=list(TEXTS), num_inference_steps=4, latents=given, output_type="pt", **CALLS[name]
            )[0]
            torch.testing.assert_close(pictures, own, atol=1e-3, rtol=1e-3)


def times(base: Base, *shares: float) -> Tensor:
    timesteps = torch.tensor([share * base.schedule.num_train_timesteps for share in shares])
    return timesteps.long() if hasattr(base.schedule, "alphas_cumprod") else timesteps


@every_base
def test_gradients_reach_every_encoder(name: str) -> None:
    base = base_of(name)
    length = sum(encoder.length for encoder in base.encoders)
    shift = torch.zeros(2, length, base.token_width, requires_grad=True)
    conditioning = base.encode(TEXTS, token_shift=shift)
    leaves = [shift, conditioning.prompt_embeds, *(v for k, v in conditioning.added.items() if k == "pooled")]
    predicted = base.predict(
        base.backbone, initial_noise(base.latent_shape, [1, 2]), times(base, 0.7, 0.3), conditioning
    )
    first, *others = torch.autograd.grad(predicted.square().mean(), leaves)
    assert all(gradient.abs().max() > 0 for gradient in others)
    assert all(part.abs().max() > 0 for part in first.split([encoder.length for encoder in base.encoders], 1))


@every_base
def test_a_name_is_found_in_every_template_and_counted_from_its_end(name: str) -> None:
    base = base_of(name)
    prompts = [fill(template, CONCEPT.name) for template in CONCEPT.templates]
    for encoder in base.encoders:
        ids = encoder.tokens([prompt.text for prompt in prompts]).input_ids
        wanted = CONCEPT.name.lower() if encoder.lower or "CLIP" in type(encoder.module).__name__ else CONCEPT.name
        for row, (place,) in zip(ids, encoder.positions(prompts), strict=True):
            assert encoder.tokenizer.decode(row[place]).strip() == wanted
    table = base.concept_tokens(prompts)
    assert len({int(row.max()) for row in table}) == 1  # the last token is the same row in all
    assert table.shape[1] == base.encode(TEXTS[:1]).prompt_embeds.shape[1]


@every_base
def test_tokens_are_found_by_a_folder_without_weights(name: str, tmp_path: Path) -> None:
    base = base_of(name)
    base.pipeline.save_config(tmp_path)
    for part, own in base.pipeline.components.items():
        if part.startswith("tokenizer") and own is not None:
            own.save_pretrained(tmp_path / part)
    for part, module in base.modules().items():
        save = getattr(module, "save_config", None) or module.config.save_pretrained  # type: ignore[union-attr]
        save(tmp_path / part)  # type: ignore[operator]
    found = weightless.encoders(tmp_path, type(base))
    prompts = [fill(template, CONCEPT.name) for template in CONCEPT.templates]
    for alone, own in zip(found, base.encoders, strict=True):
        own = replace(own, length=alone.length) if name.startswith("flux2") else own  # tiny ones read less
        same = ("part", "length", "rows", "columns", "keep", "causal", "prefix", "before", "after")
        assert [getattr(alone, field) for field in same] == [getattr(own, field) for field in same]
        assert alone.positions(prompts) == own.positions(prompts)


@torch.no_grad()
def randomised(delta: Delta, scale: float) -> None:
    for parameter in delta.parameters():
        parameter.normal_(0, scale)


def changed(base: Base, delta: Delta, p: dict[str, Tensor], noise: Tensor, told: Conditioning, t: Tensor) -> float:
    """How much a projected delta moves what the base says."""
    was = base.denoise(base.backbone, noise, t, told)
    with delta.on(), delta.projected(p):
        return float((base.denoise(base.backbone, noise, t, told) - was).abs().max())


@every_base
def test_a_projection_keeps_the_empty_prompt_at_every_t(name: str) -> None:
    base = base_of(name)
    with torch.no_grad():
        own, empties = base.spoken(base.encode(TEXTS)), base.empties()
        kept = {group: torch.cat([base.present(empty)[group] for empty in empties]).T for group in own}
        systems = {group: with_ridge(gram(tokens), 1e-3) for group, tokens in own.items()}
        p = {group: (s @ constrained_inverse(s, kept[group])).float()[None] for group, s in systems.items()}
        delta = Delta(base.backbone, "readers")
        try:
            randomised(delta, 0.3)
            noise = initial_noise(base.latent_shape, [1])
            changes = [
                [changed(base, delta, p, noise, told, t) for t in (times(base, 0.7), times(base, 0.1))]
                for told in (*empties, base.encode(TEXTS[:1]))
            ]
            *still, concept = torch.tensor(changes)
            assert all((own < 1e-2 * concept).all() for own in still)
        finally:
            delta.detach()


@every_base
def test_an_anchor_is_represented_by_the_readers(name: str) -> None:
    """dW E_c = W (E_a - E_c) by least squares: the student says of the concept what the teacher says of the anchor."""
    base = base_of(name)
    prompt = fill(CONCEPT.templates[2], CONCEPT.name)  # of fewer tokens than the narrowest readers have inputs
    with torch.no_grad():
        e_c = base.encode([prompt])
        inside = (base.concept_tokens([prompt]) >= 0)[..., None]
        moved = e_c.prompt_embeds + inside * e_c.prompt_embeds.std() * torch.randn(1, 1, e_c.prompt_embeds.shape[-1])
        e_a = e_c.with_embeds(moved).with_pooled(base.encode(["a painting"]))
        read_c, read_a = (base.present(told) for told in (e_c, e_a))
        delta = Delta(base.backbone, "readers")
        try:
            for linear, layer in delta.layers.items():
                c, a = (own[layer.group].double().T for own in (read_c, read_a))  # type: ignore[index]
                dw = layer.base.weight.double() @ (a - c) @ torch.linalg.pinv(c)
                delta.named_parameters()[f"{linear}.weight"][0] = dw.float()
            noise, t = initial_noise(base.latent_shape, [1]), times(base, 0.7)
            was, wanted = (base.denoise(base.backbone, noise, t, told) for told in (e_c, e_a))
            with delta.on():
                found = base.denoise(base.backbone, noise, t, e_c)
        finally:
            delta.detach()
    assert (found - wanted).norm() < 5e-3 * (was - wanted).norm()


@every_base
def test_one_erase_through_plain_torch(name: str) -> None:
    base = base_of(name)
    settings = adv_anchor.Settings(**QUICK_ANCHOR | {"anchor_lr": 1e-2, "steps": 1, "anchor_steps": 1})
    for method in (settings, uce.Settings()):
        erased = api.erase(base.pipeline, CONCEPT, method)
        expected = {f"{linear}.weight" for group in base.readers.values() for linear in group}
        assert erased.erasure.delta.keys() == expected
        assert all(tensor.isfinite().all() for tensor in erased.erasure.delta.values())
        assert any(tensor.any() for tensor in erased.erasure.delta.values())


def test_image_attention_of_sd35_is_not_taken_for_text() -> None:
    base = base_of("sd35")
    names = [name for name, module in base.backbone.named_modules() if isinstance(module, nn.Linear)]
    assert any(".attn2." in name for name in names)
    for setting in base.trained_weights:
        assert not any(".attn2." in name for name in linear_names(base.backbone, setting))
    with pytest.raises(
        ValueError, match="'cross_attention_kv' is not one of readers, text_kv, pooled, which this base"
    ):
        linear_names(base.backbone, "cross_attention_kv")


def test_an_unsupported_pipeline_names_the_supported_ones() -> None:
    with pytest.raises(models.ModelError, match=r"DiTPipeline.*StableDiffusionXLPipeline.*FluxPipeline"):
        models.adapter_class("DiTPipeline")
