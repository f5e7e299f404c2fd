"""The setting that every check's process is given: device and sizes. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """One run's choices; `scratch` is a folder that all checks of a run share: weights, compiled code."""

    device: str  # as torch.device takes it: "cuda", "cuda:1", "cpu"
    small: bool  # sizes that end on a CPU
    scratch: Path

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA one."""
        return self.device.startswith("cuda")
