"""A linear layer and its LoRA adapter as one step: no copies of the input, the adapter's part added in place."""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer


def fuse(model: torch.nn.Module) -> int:
    """Lets each plain LoRA layer of a model compute itself and its adapter in one step; the number of them.

    Layers with a variant (DoRA), on an 8-bit base or with several adapters stay as PEFT has them. What is computed is
    the same; in bfloat16 and float16 it is rounded once less.
    """
    fused = 0
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and _is_plain(layer):
            layer.forward = partial(_forward, layer, layer.forward)
            fused += 1
    return fused


def _is_plain(layer: Any) -> bool:
    """Whether one adapter of two matrices lies on a layer of one matrix."""
    import bitsandbytes as bnb

    return (
        type(layer.base_layer) in (torch.nn.Linear, bnb.nn.Linear4bit)
        and len(layer.lora_A) == 1
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
    )


def _forward(layer: Any, plain: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """What PEFT's layer gives for an input (..., features), through `plain`, its own forward, where it is not used."""
    if layer.disable_adapters or layer.merged or args or kwargs:
        return plain(x, *args, **kwargs)  # type: ignore[no-any-return]
    name = next(iter(layer.lora_A))
    kind = x.device.type
    is_cast = kind != "meta" and torch.is_autocast_enabled(kind)  # which an estimate computes on has no autocast
    dtype = torch.get_autocast_dtype(kind) if is_cast else x.dtype
    x = x.to(dtype)
    return LoraLinear.apply(  # type: ignore[no-any-return, no-untyped-call]
        x,
        layer.lora_dropout[name](x),
        layer.lora_A[name].weight.to(dtype),
        layer.lora_B[name].weight.to(dtype),
        layer.base_layer,
        layer.scaling[name],
    )


class LoraLinear(torch.autograd.Function):
    """y = x W' + bias + s (d A') B', where d is the input after dropout and W is frozen (arXiv:2106.09685, eq. 3)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, d: torch.Tensor, a: torch.Tensor, b: torch.Tensor, base: Any, s: float
    ) -> Any:
        """x and d are (..., inputs), A (r, inputs), B (outputs, r); the result is (..., outputs)."""
        weight, bias = _weight(base, x.dtype), base.bias
        y = torch.nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))
        u = d.flatten(0, -2) @ a.T
        y.view(-1, y.shape[-1]).addmm_(u, b.T, alpha=s)
        ctx.save_for_backward(d, u, a, b)
        ctx.base, ctx.s, ctx.is_dropped = base, s, d is not x
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradients of x, d, A and B."""
        d, u, a, b = ctx.saved_tensors
        dy = gradients[0].flatten(0, -2)
        du = (dy @ b).mul_(ctx.s)
        da = du.T @ d.flatten(0, -2) if ctx.needs_input_grad[2] else None
        db = (dy.T @ u).mul_(ctx.s) if ctx.needs_input_grad[3] else None
        dx = dy @ _weight(ctx.base, dy.dtype) if ctx.needs_input_grad[0] else None
        dd = None
        if ctx.needs_input_grad[1]:
            if dx is not None and not ctx.is_dropped:
                dx.addmm_(du, a)
            else:
                dd = (du @ a).view_as(d)
        return None if dx is None else dx.view_as(d), dd, da, db, None, None


def _weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """The layer's matrix (outputs, inputs), dequantised where it is held in 4 bits."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return base.weight.to(dtype)  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(base.weight, state).to(dtype)  # type: ignore[no-any-return]
