"""The device's name, if it is there. Runs before any check in a process of its own, which torch may end."""

import torch

from benchmarks.gpu_check.results import CheckSkipped, Finding
from benchmarks.gpu_check.setting import Setting
from encoders.device import choose_device
from model_store.errors import ModelError

LEAST_TORCH = (2, 11)


def check(setting: Setting) -> Finding:
    """Raises CheckSkipped, with what to do, where no check could run."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < LEAST_TORCH:
        least = ".".join(map(str, LEAST_TORCH))
        raise CheckSkipped(f"torch {torch.__version__} is too old; install {least} or newer")
    facts = {"device": "cpu", "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    if not setting.on_gpu:
        return Finding(facts=facts)
    try:
        device = choose_device(setting.device)
    except ModelError as error:
        raise CheckSkipped(f"{error} Without a GPU, --device cpu --small shows that the checks run.") from error
    return Finding(facts=facts | {"device": torch.cuda.get_device_name(device)})
