"""The tensors that training changes, whole on one side and as the model holds them (sharded or not) on the other.

Names are those of the bare model: wrappers that a launcher adds leave no trace in a file. FSDP of version 2 shards
each parameter as a DTensor, which keeps its name and can be gathered; version 1 flattens them and is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from training.errors import CheckpointMismatch

_WRAPPER: Final = "_checkpoint_wrapped_module."  # activation checkpointing, when the launcher is asked for it

Tensors = dict[str, Tensor]


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter, in the model's order; frozen ones are left out."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name.replace(_WRAPPER, ""), parameter


def read_weights(model: nn.Module) -> Tensors:
    """Trained parameters and persistent buffers, whole, on the CPU. Every process must call it: shards are gathered."""
    return {name: _whole(tensor) for name, tensor in _trained_tensors(model).items()}


def write_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """The inverse of `read_weights`; each process takes its shard.

    Raises:
        CheckpointMismatch: other names or shapes than the model's.
    """
    tensors = _trained_tensors(model)
    _require_same_shapes({name: tensor.shape for name, tensor in tensors.items()}, weights)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(_sharded_like(tensor, weights[name]))


def read_optimizer(model: nn.Module, optimizer: Optimizer) -> Tensors:
    """The optimiser's tensors as `<parameter>:<what>`, whole, on the CPU. Every process must call it."""
    return {
        f"{name}:{what}": _whole(value)
        for name, parameter in trained_parameters(model)
        for what, value in optimizer.state[parameter].items()
    }


def write_optimizer(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `read_optimizer`, into an optimiser that has not taken a step."""
    parameters = dict(trained_parameters(model))
    for key, value in tensors.items():
        name, what = key.rsplit(":", 1)
        parameter = parameters[name]
        # Step counts are no shards; fused AdamW wants them on the parameter's device.
        optimizer.state[parameter][what] = (
            _sharded_like(parameter.detach(), value) if value.ndim else value.to(parameter.device)
        )


def _trained_tensors(model: nn.Module) -> Tensors:
    kept = model.state_dict().keys()  # a buffer that the model does not persist, it makes anew
    buffers = ((name.replace(_WRAPPER, ""), buffer) for name, buffer in model.named_buffers())
    return {**dict(trained_parameters(model)), **{name: buffer for name, buffer in buffers if name in kept}}


def _whole(tensor: Tensor) -> Tensor:
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    # A copy even on the CPU: two names of one tied tensor would share memory, which safetensors refuses.
    return full.detach().to("cpu", copy=True).contiguous()


def _sharded_like(like: Tensor, whole: Tensor) -> Tensor:
    whole = whole.to(like.device, like.dtype if like.is_floating_point() else whole.dtype)
    if not isinstance(like, DTensor):
        return whole
    # Every process has read the same file, so none needs to send.
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def _require_same_shapes(expected: Mapping[str, torch.Size], found: Mapping[str, Tensor]) -> None:
    shapes = {name: tensor.shape for name, tensor in found.items()}
    if shapes == expected:
        return
    wrong = sorted(name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name))
    raise CheckpointMismatch(
        f"The checkpoint was made for another model: {len(wrong)} tensors are missing, left over or of another shape, "
        f"first {wrong[0]}."
    )
