"""A training step in numbers: what is alive in it, its operations, and how it grows with layers."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Step:
    """Of the forward and the backward pass of a batch, with neither weights nor gradients that stay."""

    kept: float
    """Bytes alive after the forward pass."""
    peak: float
    """Bytes alive at most."""
    flops: float
    """Floating-point operations of products, two for a multiplication with an addition."""
    moved: float
    """Bytes that all other operations read and write."""
    kernels: float
    """Operations that a GPU is told one by one."""

    def __add__(self, other: "Step") -> "Step":
        return Step(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, number: float) -> "Step":
        return Step(*(one * number for one in astuple(self)))


@dataclass(frozen=True)
class Layers:
    """The step of a model, layer by layer."""

    first: Step
    """With one layer."""
    further: Step
    """What each further one adds."""

    def towards(self, other: "Layers", share: float) -> "Layers":
        """What lies at that share of the way from these layers to others, or beyond them."""
        pairs = ((self.first, other.first), (self.further, other.further))
        return Layers(*(one + (more + one * -1) * share for one, more in pairs))


@dataclass(frozen=True)
class Kind:
    """What a step depends on besides its batch."""

    dtype: "torch.dtype"
    is_full: bool
    """Whether the base itself is trained, without an adapter."""
    attention: str
    """flash, efficient, or cpu."""
    is_packed: bool
    is_fused: bool


@dataclass(frozen=True)
class Steps:
    """The steps of a batch in a model of so many layers, put together from those with one layer and with two."""

    num_layers: int
    num_tokens: int
    """That are computed: without what rows share twice, with padding where there is any."""
    plain: Layers
    again: Callable[[], Layers]
    """With layers that compute their activations again: it is asked for where not all fit without, as it takes time."""

    def towards(self, other: "Steps", share: float) -> "Steps":
        """What lies at that share of the way from these steps to others, or beyond them."""
        tokens = round(self.num_tokens + (other.num_tokens - self.num_tokens) * share)
        plain = self.plain.towards(other.plain, share)
        return Steps(self.num_layers, max(1, tokens), plain, cache(lambda: self.again().towards(other.again(), share)))

    def step(self, every: int) -> Step:
        """With activations computed again in no layer (0), or in one of so many."""
        more = self.num_layers - 1
        if not every:
            return self.plain.first + self.plain.further * more
        again, number = self.again(), -(-self.num_layers // every)
        return again.first + again.further * (number - 1) + self.plain.further * (self.num_layers - number)
