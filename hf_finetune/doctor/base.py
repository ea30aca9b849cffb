"""The base model: whether it is there, and of a kind that can be loaded, quantised and given an adapter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_finetune.doctor.line import Line, fault, ok, warning
from hf_finetune.doctor.subject import Subject
from hf_finetune.errors import RecipeError, first_line, nearest
from hf_finetune.estimate.shape import empty_model, explaining
from hf_finetune.files import read_json
from hf_finetune.licences import adapter_license, read_license
from hf_finetune.model import BaseModel, adapter_config, find_base_model
from hf_finetune.packed_model import INNER, PackedModel
from hf_finetune.resolve import find_card

HELD_BY_BNB = ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit")
MOST_OUTSIDE = 0.5
"""The share of a base's parameters outside of linear layers from which 4 bits save little."""


def found(subject: Subject) -> Iterator[Line]:
    """The base at its commit, or in its folder; gates, rights and revisions are the Hub's to tell."""
    if not subject.settings.model_name_or_path:
        raise RecipeError("base model: none is named. Set model_name_or_path=OWNER/NAME.")
    base = subject.base or find_base_model(subject.settings)
    subject.base = base
    yield ok(f"{base.name} at {base.commit[:12]} of {base.revision}" if base.commit else f"{base.name}, a folder here")


def architecture(subject: Subject) -> Iterator[Line]:
    """Whether transformers has the base's architecture, as a causal language model, without code of the repo's own."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if subject.base is None:
        return
    raw = config_of(subject.base)
    kind, name = str(raw.get("model_type") or ""), f"base model {subject.base.name!r}"
    if kind not in CONFIG_MAPPING_NAMES and "auto_map" in raw:
        yield fault(
            f"{name}: needs code of its own repo ({kind or 'no model_type'}), which is never run here",
            "name a base whose architecture transformers has",
        )
    elif kind not in CONFIG_MAPPING_NAMES:
        fix = nearest(kind, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, otherwise="name another base, or update transformers")
        yield fault(f"{name}: transformers does not know the architecture {kind!r}", fix)
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or raw.get("is_encoder_decoder"):
        yield fault(
            f"{name}: is {kind}, which is no causal language model: it does not write text from left to right",
            "name a base that does, such as Qwen/Qwen2.5-0.5B-Instruct",
        )
    else:
        yield from _skeleton(subject, subject.base)


def quantised_already(subject: Subject) -> Iterator[Line]:
    """Whether the base is saved quantised, which cannot be quantised once more."""
    held = getattr(subject.config, "quantization_config", None)
    if not held:
        return
    method = str((held if isinstance(held, dict) else held.to_dict()).get("quant_method") or "bitsandbytes")
    if method in HELD_BY_BNB:
        yield ok("it is saved in bitsandbytes' bits already, and is loaded so")
    elif subject.settings.load_in_4bit or subject.settings.load_in_8bit:
        asked = "load_in_4bit" if subject.settings.load_in_4bit else "load_in_8bit"
        yield fault(
            f"it is saved quantised by {method} already, and {asked}=true would quantise it once more",
            f"name the base that it was made of, or {asked}=false",
        )


def quantised_part(subject: Subject) -> Iterator[Line]:
    """How much of the base is in linear layers, which are all that bitsandbytes quantises."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if subject.skeleton is None or not (subject.settings.load_in_4bit or subject.settings.load_in_8bit):
        return
    head = subject.skeleton.get_output_embeddings()
    held = {id(own) for own in (head, subject.skeleton.get_input_embeddings())}
    linear = sum(
        m.weight.numel()
        for m in subject.skeleton.modules()
        if isinstance(m, (torch.nn.Linear, Conv1D)) and id(m) not in held
    )
    own = sum(m.weight.numel() for m in subject.skeleton.modules() if isinstance(m, torch.nn.Embedding))
    rest = sum(p.numel() for p in subject.skeleton.parameters()) - linear - own
    if rest > MOST_OUTSIDE * (linear + rest) and linear + rest > 10**7:
        yield warning(
            f"{rest / (linear + rest):.0%} of its layers' parameters are no linear layers (fused experts): "
            f"they are not quantised, and get no adapter",
            "name a dense base, or count on more memory",
        )


def adapter(subject: Subject) -> Iterator[Line]:
    """Whether the base has the layers that are to get an adapter, and the rank is below their sides."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if subject.skeleton is None:
        return
    asked, rank = adapter_config(subject.skeleton, subject.settings), subject.settings.lora_r
    head = subject.skeleton.get_output_embeddings()
    names = None if asked.target_modules == "all-linear" else set(asked.target_modules)
    kinds = (torch.nn.Linear, Conv1D) if names is None else torch.nn.Linear  # GPT-2 has the other kind; as PEFT does
    sides = {
        name.rsplit(".", 1)[-1]: min(m.weight.shape)
        for name, m in subject.skeleton.named_modules()
        if isinstance(m, kinds) and m is not head and (names is None or name.rsplit(".", 1)[-1] in names)
    }
    small = sorted(name for name, side in sides.items() if rank > side)
    if not sides:
        yield fault("none of its layers is linear, so that none can get an adapter", "name another base")
    elif small:
        least = min(sides[name] for name in small)
        yield warning(
            f"lora_r is {rank}, more than the smaller side of {', '.join(small)} ({least}): an adapter there "
            f"is larger than the layer, and no better",
            f"lora_r={min(16, least)}",
        )


def packing(subject: Subject) -> Iterator[Line]:
    """Whether rows can be laid end to end in this architecture."""
    values = subject.settings
    if subject.skeleton is None or not values.padding_free or values.attn_implementation not in ("auto", "sdpa"):
        return
    why = PackedModel(subject.skeleton).refusal()
    if why:
        yield warning(
            f"padding_free will be off: {why}; rows are filled up to one length, which is slower",
            "padding_free=false group_by=length",
        )


def context(subject: Subject) -> Iterator[Line]:
    """Whether rows of max_length tokens fit into the base's context; rotary positions go on beyond it, learnt ones end.

    A base may also be asked for more than its config says, by YaRN.
    """
    longest, asked = context_of(subject), subject.settings.max_length
    is_meant = subject.recipe is not None or subject.is_asked("max_length")
    if longest and asked > longest and is_meant:
        rows = [len(row["input_ids"]) for row in subject.encoded.train] if subject.encoded else []
        is_rotary = (
            bool(getattr(subject.config.get_text_config(), "rope_parameters", None)) if subject.config else False
        )
        line = fault if rows and max(rows) > longest and not is_rotary else warning
        yield line(f"max_length is {asked}, and the base's context is {longest} tokens", f"max_length={longest}")


def licence(subject: Subject) -> Iterator[Line]:
    """Whether the adapter may have the licence that the recipe claims, given those of the data and the base."""
    base = subject.base
    if base is None:
        return
    card = find_card(base.name, base.commit, "base model") if base.commit else Path(base.location) / "README.md"
    own = read_license(card)
    claimed = adapter_license(subject.license, subject.data_license, {"name": base.name} | own)
    known = own.get("license")
    if claimed and known:
        yield ok(f"licences: base {known}, adapter {claimed}")
    elif claimed and not subject.is_demo:
        yield ok(f"licences: the base's card names none; adapter {claimed}")


def context_of(subject: Subject) -> int:
    """How many tokens the base was made for; 0 where its config does not say."""
    if subject.config is None:
        return 0
    text = subject.config.get_text_config()
    given = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return int(given) if isinstance(given, int) else 0


def config_of(base: BaseModel) -> dict[str, Any]:
    """What the base's config.json holds.

    Raises:
        RecipeError: when it is not there, or no JSON.
    """
    from transformers.utils.hub import cached_file

    name = f"base model {base.name!r}"
    try:
        file = cached_file(base.location, "config.json", revision=base.commit)
        held = read_json(Path(file)) if file else None
    except OSError as error:
        raise RecipeError(f"{name}: its config.json cannot be had: {first_line(error)}. Name another base.") from error
    except ValueError as error:
        raise RecipeError(f"{name}: its config.json is no JSON ({first_line(error)}). Fetch the base again.") from error
    if not isinstance(held, dict):
        raise RecipeError(f"{name}: its config.json holds no settings. Fetch the base again.")
    return held


def _skeleton(subject: Subject, base: BaseModel) -> Iterator[Line]:
    """Leaves the base's config, and the base without its weights, in the subject."""
    from transformers import AutoConfig

    asked = subject.settings.attn_implementation
    with explaining(base.name):
        subject.config = AutoConfig.from_pretrained(base.location, revision=base.commit, trust_remote_code=False)
        subject.skeleton = empty_model(subject.config, attention=asked if asked in INNER else None)
    count = sum(p.numel() for p in subject.skeleton.parameters())
    longest = context_of(subject)
    size = f"{count / 1e9:.2f} billion" if count >= 10**8 else f"{count / 1e6:.1f} million"
    yield ok(f"{type(subject.skeleton).__name__}, {size} parameters" + (f", context {longest:,}" if longest else ""))
