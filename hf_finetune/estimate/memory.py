"""What a training holds in a GPU's memory, part by part, in GiB."""

from dataclasses import dataclass

from hf_finetune.estimate.gpus import Gpu
from hf_finetune.estimate.methods import trainable_parameters
from hf_finetune.estimate.shape import Shape
from hf_finetune.settings import OPTIMIZER_BYTES, Settings

GIB = 2**30
ABSMAX_BLOCK = 64
"""Values of a 4-bit layer that share a scale (arXiv:2305.14314, section 3)."""
NESTED_BLOCK = 256
"""Scales that share one of their own, with double quantisation."""
CONTEXT_GIB = 0.5
"""What CUDA, cuBLAS and the kernels take of a GPU before the first tensor: 0.3 to 0.6 GiB; an assumption."""
NCCL_GIB = 0.5
"""The buffers through which GPUs talk; an assumption."""
FRAGMENTATION = 0.05
"""Of what comes and goes, in torch's allocator, which hands out blocks of 2 and 20 MiB; an assumption."""

MASTER_BYTES = 4
"""Full fine-tuning in half precision keeps the numbers in float32 besides (ZeRO, arXiv:1910.02054, section 3.1)."""


@dataclass(frozen=True)
class Memory:
    """The parts, in GiB, of the moment of training at which there is the most."""

    weights: float
    """The base as it is held."""
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    """What the forward pass keeps, and what comes and goes beside it."""
    logits: float
    """The scores of the vocabulary, and their gradients, where a label is predicted from."""
    workspace: float
    """The largest layer that is dequantised, or gathered from other GPUs, and the buffers between GPUs."""
    context: float
    fragmentation: float
    evaluation: float
    """All of it while answers are written, with the cache of keys and values: another moment, not added up."""

    @property
    def training(self) -> float:
        """The sum of the parts."""
        parts = self.weights, self.adapter, self.gradients, self.optimizer, self.activations, self.logits
        return sum(parts) + self.workspace + self.context + self.fragmentation

    @property
    def peak_gib(self) -> float:
        """The most at any moment."""
        return max(self.training, self.evaluation)


def quantized_bytes(shape: Shape, settings: Settings) -> int:
    """The bytes of the layers that are held in few bits, exactly as bitsandbytes holds them.

    In 4 bits: two values a byte and for each 64 a scale, which is a float32, or a byte with double quantisation, then
    with a float32 for each 256 scales and an offset a layer: 4.127 bits a value. In 8 bits: a byte a value, a float32
    for each output.
    """
    layers = [layer for layer in shape.linears if layer.is_quantized]
    if settings.load_in_8bit:
        return sum(layer.size + 4 * layer.outputs for layer in layers)
    total = 0
    for layer in layers:
        scales = -(-layer.size // ABSMAX_BLOCK)
        nested = scales + 4 * (-(-scales // NESTED_BLOCK)) + 4
        total += -(-layer.size // 2) + (nested if settings.use_bnb_nested_quant else 4 * scales)
    return total


def weights_bytes(shape: Shape, settings: Settings, method: str, itemsize: int) -> int:
    """The bytes of the base: in few bits what is quantised, in the precision that is computed in what is not."""
    if method in ("qlora", "lora8"):
        return quantized_bytes(shape, settings) + itemsize * shape.plain_parameters
    return itemsize * shape.num_parameters


def trained_bytes(shape: Shape, settings: Settings, method: str, itemsize: int) -> tuple[float, float, float]:
    """The bytes of the adapter, or of the master copy of a base that is trained whole; of gradients; of the optimiser.

    An adapter and its gradients are in float32, so that small steps are not lost.
    """
    trainable, state = trainable_parameters(shape, settings, method), OPTIMIZER_BYTES[settings.optim]
    if method != "full":
        return 4.0 * trainable, 4.0 * trainable, state * trainable
    return (MASTER_BYTES if itemsize < 4 else 0.0) * trainable, float(itemsize * trainable), state * trainable


def cache_bytes(shape: Shape, tokens: int, itemsize: int) -> int:
    """The bytes of the keys and values of so many tokens in all layers."""
    return 2 * shape.num_layers * shape.kv_heads * shape.head_size * itemsize * tokens


def context_gib(gpu: Gpu, num_gpus: int) -> float:
    """What a GPU needs of itself."""
    return 0.0 if gpu.is_cpu else CONTEXT_GIB + (NCCL_GIB if num_gpus > 1 else 0.0)


def itemsize_of(gpu: Gpu, settings: Settings) -> int:
    """The bytes of a number that is computed with on that device, as `dtype=auto` decides it."""
    if settings.dtype == "auto":
        return 4 if gpu.is_cpu else 2
    return 4 if settings.dtype == "float32" else 2
