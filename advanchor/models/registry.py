"""Which pipelines there are, and the file of this folder that adapts each."""

ADAPTERS: dict[str, str] = {  # by the pipeline's class in model_index.json: the module and class that adapt it
    "StableDiffusionPipeline": "stable_diffusion:StableDiffusion",
    "StableDiffusionXLPipeline": "sdxl:StableDiffusionXL",
    "StableDiffusion3Pipeline": "sd3:StableDiffusion3",
    "FluxPipeline": "flux:Flux",
    "PixArtSigmaPipeline": "pixart:PixArtSigma",
    "SanaPipeline": "sana:Sana",
    "Flux2Pipeline": "flux2:Flux2",
    "Flux2KleinPipeline": "flux2:Flux2Klein",
    "QwenImagePipeline": "qwen_image:QwenImage",
    "ZImagePipeline": "z_image:ZImage",
}
