"""The optimiser of every stage. Needs nothing but torch."""

from torch import nn
from torch.optim import AdamW, Optimizer

from training.loop.settings import LoopSettings, rate_factor
from training.loop.trained_state import trained_parameters


def adamw(model: nn.Module, settings: LoopSettings) -> Optimizer:
    """Over the model's trained parameters; each group has its `factor`, which the step's rate is multiplied by."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained_parameters(model):
        # Norm weights and biases keep their size: decay is for matrices.
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((decay, rate_factor(settings, name)), []).append(parameter)
    described = [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (decay, factor), parameters in groups.items()
    ]
    return AdamW(described, lr=settings.learning_rate, betas=settings.betas, fused=True)
