"""A layer and its adapter in one step against PEFT's own forward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import get_peft_model

from hf_finetune.lora import fuse
from hf_finetune.model import adapter_config, dequantize_if_asked, find_base_model, load_base_model
from hf_finetune.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

Results = tuple[torch.Tensor, dict[str, torch.Tensor]]
IDS = torch.arange(3, 67).view(2, 32)


def adapted(base: Path, **values: Any) -> Any:
    """The tiny base with an adapter whose B is no longer zero, as after some steps."""
    defaults: dict[str, Any] = {"lora_r": 4, "lora_dropout": 0.0, "dequantize_once": False}
    settings = Settings(model_name_or_path=str(base), **defaults | values)
    model = load_base_model(find_base_model(settings), settings)
    dequantize_if_asked(model, settings)
    torch.manual_seed(0)
    with_adapter = get_peft_model(model, adapter_config(model, settings))
    for name, parameter in with_adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return with_adapter


def results(model: Any) -> Results:
    """The logits, and the gradients of a loss on them; the same random numbers each time."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    logits = model(input_ids=IDS).logits
    logits.float().log_softmax(-1)[..., 7].sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(plain: Results, given: Results, dtype: str) -> None:
    """Logits and gradients are equal, these in parts of their largest value.

    In float32 only sums are taken in another order; bfloat16 is rounded at other places, by 2**-8 each time.
    """
    rtol, atol = (1e-4, 1e-5) if dtype == "float32" else (0.05, 0.05)
    torch.testing.assert_close(given[0], plain[0], rtol=rtol, atol=atol)
    assert given[1].keys() == plain[1].keys()
    assert len(given[1]) == 28
    for name, gradient in plain[1].items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(given[1][name] / largest, gradient / largest, rtol=rtol, atol=atol)


FORMS: dict[str, dict[str, Any]] = {
    "4 bits": {},
    "4 bits, dequantised once": {"dequantize_once": True},
    "not quantised": {"load_in_4bit": False},
    "dropout": {"lora_dropout": 0.3},
    "another scale": {"use_rslora": True, "lora_alpha": 5},
    "half": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_those_of_peft(tiny_base: Path, form: str, training: bool) -> None:
    model = adapted(tiny_base, **FORMS[form]).train(training)
    plain = results(model)
    assert fuse(model) == 14
    assert_same(plain, results(model), "half" if form == "half" else "float32")


def test_the_base_alone_is_that_of_peft(tiny_base: Path) -> None:
    model = adapted(tiny_base).eval()
    with torch.no_grad(), model.disable_adapter():
        plain = model(input_ids=IDS).logits
    fuse(model)
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(input_ids=IDS).logits, plain)


@pytest.mark.parametrize("values", [{"use_dora": True}, {"load_in_4bit": False, "load_in_8bit": True}])
def test_what_is_more_than_two_matrices_stays_as_it_is(tiny_base: Path, values: dict[str, Any]) -> None:
    assert fuse(adapted(tiny_base, **values)) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_dequantised_once_gives_the_same_numbers(tiny_base: Path, dtype: str) -> None:
    held, once = (results(adapted(tiny_base, dtype=dtype, dequantize_once=once)) for once in (False, True))
    assert_same(held, once, dtype)


def test_the_base_is_dequantised_once_only_where_there_is_room(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def layers_in_4_bits(free: int) -> int:
        monkeypatch.setattr("hf_finetune.model.free_memory", lambda: free)
        return sum(isinstance(m, Linear4bit) for m in adapted(tiny_base, dequantize_once="auto").modules())

    plain = [m.weight for m in adapted(tiny_base, dequantize_once=True).modules() if type(m) is torch.nn.Linear]
    needed = sum(weight.nbytes for weight in plain if not weight.requires_grad and weight.shape[0] != 512)
    assert layers_in_4_bits(4 * needed) == 0
    assert layers_in_4_bits(4 * needed - 4) == 14
