"""The ways of training that are compared: the settings of each, and what it trains."""

from hf_finetune.errors import RecipeError
from hf_finetune.estimate.shape import Shape
from hf_finetune.settings import Settings

METHODS = ("qlora", "lora8", "lora", "full")
"""An adapter on a base in 4 bits, in 8 bits, as it is; and all of the base's own numbers."""
NAMES = {"qlora": "QLoRA", "lora8": "LoRA, 8 bits", "lora": "LoRA", "full": "full"}


def method_of(settings: Settings) -> str:
    """The method that the settings ask for."""
    return "qlora" if settings.load_in_4bit else "lora8" if settings.load_in_8bit else "lora"


def with_method(settings: Settings, method: str) -> Settings:
    """The settings, changed to the method."""
    return settings.model_copy(update={"load_in_4bit": method == "qlora", "load_in_8bit": method == "lora8"})


def adapter_parameters(shape: Shape, settings: Settings) -> int:
    """The values of the adapter: r (inputs + outputs) for each layer (arXiv:2106.09685, section 4.1).

    DoRA has a magnitude for each output besides (arXiv:2402.09353, equation 5).

    Raises:
        RecipeError: when the base has none of the layers.
    """
    layers = [layer for layer in shape.linears if _is_target(layer.name, settings.lora_target_modules)]
    if not layers:
        raise RecipeError(
            f"lora_target_modules: the base has no layer {', '.join(settings.lora_target_modules)}. "
            f"It has {', '.join(sorted({layer.name.rsplit('.', 1)[-1] for layer in shape.linears}))}."
        )
    magnitudes = sum(layer.outputs for layer in layers) if settings.use_dora else 0
    return settings.lora_r * sum(layer.inputs + layer.outputs for layer in layers) + magnitudes


def trainable_parameters(shape: Shape, settings: Settings, method: str) -> int:
    """The values that the method trains."""
    return shape.num_parameters if method == "full" else adapter_parameters(shape, settings)


def _is_target(name: str, targets: list[str]) -> bool:
    """Whether PEFT puts an adapter on a layer of that name."""
    return targets == ["all-linear"] or any(name == target or name.endswith(f".{target}") for target in targets)
