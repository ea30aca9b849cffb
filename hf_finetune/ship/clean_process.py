"""Loads a published folder as its card says, in a process without hf_finetune, and asks it: run as a script.

It reads a JSON object from stdin and leaves one in the file named there; `verify.py` writes the one and reads the
other. It imports transformers and peft as the card's snippet does, of whatever version this interpreter has.
"""

import contextlib
import importlib.metadata
import io
import json
import platform
import sys
import warnings
from typing import Any


class Absent:
    """An import finder that finds no hf_finetune, as on a machine where it was never installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Nothing, for any other package.

        Raises:
            ModuleNotFoundError: for hf_finetune.
        """
        if name.split(".")[0] in ("hf_finetune", "hf_finetune_recipes"):
            raise ModuleNotFoundError(f"No module named {name!r}")


def main() -> None:
    """Does what the object on stdin asks for."""
    sys.meta_path.insert(0, Absent())
    asked = json.load(sys.stdin)
    given: dict[str, Any] = {}
    try:
        given = answer(asked)
    except Exception as error:  # noqa: BLE001  # whatever the snippet raises is what a user would see
        given = {"error": f"{type(error).__name__}: {error}"}
    with open(asked["output"], "w", encoding="utf-8") as file:
        json.dump(given, file)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """What the card's snippet prints, and what its model gives to each question."""
    printed = io.StringIO()
    space: dict[str, Any] = {"__name__": "__main__"}
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore")
        exec(compile(asked["snippet"], "README.md", "exec"), space)  # the card's own code
    model, tokenizer = space["model"], space["tokenizer"]
    model.eval()
    rows = [row_given(model, tokenizer, row, asked) for row in asked["rows"]]
    return {
        "printed": printed.getvalue(),
        "rows": rows,
        "without_adapter": losses_without(model, tokenizer, asked),
        "keys": adapter_keys(model),
        "embeddings": model.get_input_embeddings().weight.shape[0],
        "highest_token": max(tokenizer.get_vocab().values()),
        "quantised": bool(getattr(model, "is_quantized", False)),
        "versions": versions(),
    }


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """A question's tokens, as the card's snippet makes them."""
    if not tokenizer.chat_template:
        return list(tokenizer(question + "\n")["input_ids"])
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True
    )
    return list(encoded["input_ids"])


def row_given(model: Any, tokenizer: Any, row: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The tokens of a row's question, the loss of each of its completions, and a text where one is asked for."""
    question = prompt_ids(tokenizer, row["prompt"])
    given: dict[str, Any] = {"prompt_ids": question}
    given["losses"] = [loss(model, question, completion) for completion in row["completions"]]
    if asked["generates"]:
        given["text"] = generated(model, tokenizer, question, asked)
    return given


def loss(model: Any, question: list[int], completion: list[int]) -> float:
    """Minus the log-likelihood of a completion after a question, in nats."""
    import torch

    ids = torch.tensor([question + completion], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(question) - 1 : -1].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, len(question) :], reduction="sum"))


def generated(model: Any, tokenizer: Any, question: list[int], asked: dict[str, Any]) -> str:
    """The text that greedy decoding gives after a question."""
    import torch

    ids = torch.tensor([question], device=model.device)
    with torch.no_grad():
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=asked["max_new_tokens"],
            do_sample=False, repetition_penalty=1.0, eos_token_id=asked["stop_token_id"],
            pad_token_id=asked["stop_token_id"],
        )  # fmt: skip
    return str(tokenizer.decode(output[0, len(question) :], skip_special_tokens=True)).strip()


def losses_without(model: Any, tokenizer: Any, asked: dict[str, Any]) -> "list[float] | None":
    """The first completion's loss in each row with the adapter turned off; None where the model has none."""
    if not hasattr(model, "disable_adapter"):
        return None
    with model.disable_adapter():
        return [loss(model, prompt_ids(tokenizer, row["prompt"]), row["completions"][0]) for row in asked["rows"]]


def adapter_keys(model: Any) -> "list[str] | None":
    """The names of the tensors that the model's adapter has."""
    if not hasattr(model, "peft_config"):
        return None
    from peft import get_peft_model_state_dict

    name = next(iter(model.peft_config))
    return sorted(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))


def versions() -> dict[str, str]:
    """The versions that this process loaded the model with."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


if __name__ == "__main__":
    main()
