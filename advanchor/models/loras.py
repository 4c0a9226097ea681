"""LoRAs that are in a base's weights before anything is erased, so that what is erased from is what is served."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from advanchor.models.folders import ModelError
from advanchor.models.naming import Lora
from advanchor.models.single_file import shapes

DOWN = re.compile(
    r"\.(lora_A|lora_down|lora\.down)(\.\w+)?\.weight$|\.down\.weight$"
)  # PEFT's, kohya's, diffusers' old
ADAPTER = "served"


def fuse(pipeline: Any, loras: Sequence[Lora]) -> None:
    """Add scale * B A to the weights of a pipeline, LoRA by LoRA.

    Raises ModelError for a file that is no LoRA, or of which a layer is not this pipeline's: nothing is left out.
    """
    if not loras:
        return
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ModelError("model.loras need the package peft: pip install 'advanchor[export]'") from error
    if not hasattr(pipeline, "load_lora_weights"):
        raise ModelError(
            f"diffusers loads no LoRA into a {type(pipeline).__name__}: fuse it yourself and give a folder"
        )
    for lora in loras:
        path = Path(lora.path)
        wanted = sum(bool(DOWN.search(name)) for name in shapes(path))
        if not wanted:
            raise ModelError(f"LoRA {path} has no pair of low-rank matrices: it is no LoRA that diffusers knows")
        try:
            pipeline.load_lora_weights(
                str(path.parent),
                weight_name=path.name,
                adapter_name=ADAPTER,
                use_safetensors=True,
                local_files_only=True,
            )
            if (found := adapted(pipeline)) < wanted:
                raise ModelError(f"LoRA {path} fits {found} of its {wanted} layers to this base: it is another base's")
            pipeline.fuse_lora(lora_scale=lora.scale, adapter_names=[ADAPTER], safe_fusing=True)
            pipeline.unload_lora_weights()
        except ModelError:
            raise
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(f"LoRA {path} cannot be fused: {type(error).__name__}: {line[:300]}") from error


def adapted(pipeline: Any) -> int:
    """How many layers of a pipeline have the adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = [module for module in pipeline.components.values() if isinstance(module, nn.Module)]
    return sum(isinstance(layer, BaseTunerLayer) for module in modules for layer in module.modules())
