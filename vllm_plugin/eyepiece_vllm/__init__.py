"""Eyepiece's plugin for vLLM: a slide embedding goes in as `image_embeds`, the projector runs inside vLLM.

Nothing heavy is imported here: vLLM loads this module in its API server, its engine and every worker.
"""

SUPPORTED_VLLM = (0, 32)
# Our model around a language model of each family that it can host.
ARCHITECTURES = ("WsiLlavaForConditionalGeneration", "SlideQwen2ForConditionalGeneration")


def register() -> None:
    """Makes vLLM know the architectures; called by vLLM in each of its processes, possibly more than once.

    Raises RuntimeError on another vLLM version: the plugin overrides methods that vLLM does not promise to keep,
    and a wrong one would answer without the slide instead of failing.
    """
    import vllm
    from transformers import AutoConfig

    from eyepiece_vllm.config import SlideQwen2Config, WsiLlavaConfig

    if vllm.__version_tuple__[:2] != SUPPORTED_VLLM:
        raise RuntimeError(f"eyepiece-vllm needs vLLM 0.32, this is {vllm.__version__}; install vllm==0.32.*.")
    for config in (WsiLlavaConfig, SlideQwen2Config):
        AutoConfig.register(config.model_type, config, exist_ok=True)
    known = vllm.ModelRegistry.get_supported_archs()
    for architecture in ARCHITECTURES:
        if architecture not in known:
            # By name, so that torch is not imported before a worker has chosen its device.
            vllm.ModelRegistry.register_model(architecture, f"eyepiece_vllm.model:{architecture}")
