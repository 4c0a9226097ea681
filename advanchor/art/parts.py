"""The untrained VAE of the art gallery; the MMDiT and its text encoders are those of `pocket/mmdit.py`."""

from typing import Any

from diffusers import AutoencoderKL

from advanchor.art.world import SIZE

CHANNELS = 16  # of the latents, 8 x 8


def new_vae() -> AutoencoderKL:
    """Few channels where the picture is large: that is where the time goes."""
    make: Any = AutoencoderKL
    return make(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
    )
