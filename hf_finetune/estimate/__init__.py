"""Memory, time and money of a training, from a model's config alone, before anything large is downloaded."""

from hf_finetune.estimate.fit import Estimate, estimate
from hf_finetune.estimate.gpus import CPU, Gpu, find_gpus, known_gpus
from hf_finetune.estimate.lengths import Lengths, assumed_lengths, counted_lengths
from hf_finetune.estimate.methods import METHODS, method_of
from hf_finetune.estimate.shape import Shape, shape_of, shape_of_config, shape_of_model

__all__ = [
    "CPU",
    "METHODS",
    "Estimate",
    "Gpu",
    "Lengths",
    "Shape",
    "assumed_lengths",
    "counted_lengths",
    "estimate",
    "find_gpus",
    "known_gpus",
    "method_of",
    "shape_of",
    "shape_of_config",
    "shape_of_model",
]
