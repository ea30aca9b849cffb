"""Packed batches against the plain computation: padded rows, in every architecture that takes them."""

import gc
import weakref
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from hf_finetune.packed_model import PackedModel
from hf_finetune.packing import NO_LOSS, pack, shared_start, supervised

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOW = {"sliding_window": 5}
GEMMA = WINDOW | {"head_dim": 8, "query_pre_attn_scalar": 8}
EXPERTS = {"num_local_experts": 4}
TAKEN: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {"use_sliding_window": True, "max_window_layers": 1} | WINDOW,
    "Qwen3": {"head_dim": 8},
    "Mistral": WINDOW,
    "Mixtral": EXPERTS,
    "Gemma": {"head_dim": 8},
    "Gemma2": GEMMA,
    "Gemma3Text": GEMMA | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "Phi": {},
    "Phi3": {},
    "GPTNeoX": {},
    "GPT2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "Olmo2": {},
    "Granite": {},
    "Cohere": {},
    "Starcoder2": WINDOW,
    "SmolLM3": {},
    "GptOss": EXPERTS | WINDOW | {"head_dim": 8},
}
REFUSED: dict[str, dict[str, Any]] = {
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Falcon": {"num_hidden_layers": 2},
    "GPTNeo": {"num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "Mamba": {"num_hidden_layers": 2},
}


def tiny(name: str, values: dict[str, Any], **options: Any) -> Any:
    """A random model of an architecture, the same for the same arguments."""
    config = getattr(transformers, f"{name}Config")(**SMALL | values)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, **options).eval()


def sample() -> tuple[list[list[int]], list[list[int]]]:
    """Rows of several lengths that begin alike, two of them for longer, one is there twice; two tokens carry loss."""
    chance = torch.Generator().manual_seed(1)
    start, *rests = (torch.randint(3, 97, (n,), generator=chance).tolist() for n in (9, 4, 7, 3, 7, 12))
    rows = [start + rest for rest in rests]
    rows[3] = rows[1][:12] + rows[3][12:]
    rows.append(rows[0])
    return rows, [[NO_LOSS] * (len(row) - 2) + row[-2:] for row in rows]


def padded(rows: list[list[int]], labels: list[list[int]]) -> dict[str, torch.Tensor]:
    """The rows filled up on the right."""
    return {
        "input_ids": pad_sequence([torch.tensor(row) for row in rows], batch_first=True),
        "attention_mask": pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True),
        "labels": pad_sequence([torch.tensor(row) for row in labels], batch_first=True, padding_value=NO_LOSS),
    }


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of each parameter that has one."""
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def plain_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum of the cross-entropy of all labels, as transformers' own models compute it."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Float32 sums in another order: 1e-5 of the largest gradient of all."""
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", TAKEN)
def test_loss_and_gradients_are_those_of_padded_rows(name: str, checkpointing: bool) -> None:
    model = tiny(name, TAKEN[name])
    rows, labels = sample()
    total = plain_loss(model, padded(rows, labels))
    expected, plain = gradients(model, total), total.item()
    lean = PackedModel(model)
    assert lean.refusal() is None
    if checkpointing:
        model.activation_checkpointing_enable()
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    for shared, forks in ((0, 0), (9, 9), (0, 9), (9, 12)):
        batch = pack(rows[0][:shared], [[row[shared:forks], row[forks:]] for row in rows], labels)
        lean.switch(packed=True)
        loss = lean.losses(model, batch).sum()
        assert loss.item() == pytest.approx(plain, rel=1e-6)
        assert_same(expected, gradients(model, loss))
        lean.switch(packed=False)
    assert plain_loss(model.eval(), padded(rows, labels)).item() == plain  # it is what it was before


@pytest.mark.parametrize("name", TAKEN)
def test_a_beginning_that_is_remembered_changes_no_loss(name: str) -> None:
    model = tiny(name, TAKEN[name])
    rows, labels = sample()
    batches = [pack(rows[0][:9], [[r[9:]] for r in rows[at]], labels[at]) for at in (slice(2), slice(2, None))]
    lean = PackedModel(model)
    with torch.inference_mode(), lean.switched(packed=True):
        plain = torch.cat([lean.losses(model, batch) for batch in batches])
        with lean.remembering():
            one = lean.losses(model, batches[0])
            computed: list[int] = []
            model.get_input_embeddings().register_forward_hook(lambda _, ids, out: computed.append(ids[0].shape[1]))
            torch.testing.assert_close(torch.cat([one, lean.losses(model, batches[1])]), plain)
        assert computed == [batches[1]["input_ids"].shape[1] - 9]


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_cannot_keep_rows_apart_is_refused(name: str) -> None:
    model = tiny(name, REFUSED[name])
    rows, labels = sample()
    why = PackedModel(model).refusal()
    assert why is not None
    assert why.startswith(f"{name}ForCausalLM ")
    assert PackedModel(model).fault(supervised(padded(rows, labels)), pack([], [[row] for row in rows], labels)) == why


def test_another_attention_than_the_plain_ones_is_refused() -> None:
    model = tiny("Llama", {}, attn_implementation="flex_attention")
    assert PackedModel(model).refusal() == "attn_implementation flex_attention keeps rows apart in its own way"


def test_a_model_that_gives_packed_rows_other_losses_is_found_out() -> None:
    model = tiny("Llama", {})
    rows, labels = sample()
    whole, good = supervised(padded(rows, labels)), pack([], [[row] for row in rows], labels)
    assert PackedModel(model).fault(whole, good) is None
    leaking = pack([], [[[token for row in rows for token in row]]], [[label for own in labels for label in own]])
    assert "the losses differ by" in str(PackedModel(model).fault(whole, leaking))
    assert PackedModel(model).fault(whole, good | {"trees": ()}) is not None  # an error is a fault too
    now = PackedModel(model).losses(model, whole).sum().item()
    assert now == pytest.approx(plain_loss(model, padded(rows, labels)).item(), rel=1e-6)


def test_a_window_that_the_attention_is_not_told_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Mistral", WINDOW)
    rows, labels = sample()
    attend = PackedModel.attend
    monkeypatch.setattr(PackedModel, "attend", lambda *args, sliding_window=None, **options: attend(*args, **options))
    fault = PackedModel(model).fault(supervised(padded(rows, labels)), pack([], [[row] for row in rows], labels))
    assert fault == "its attention is not told its sliding window"


def test_a_likelihood_that_is_no_number_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Llama", {})
    rows, labels = sample()
    attend = PackedModel.attend
    monkeypatch.setattr(PackedModel, "attend", lambda *args, **options: attend(*args, **options) * float("nan"))
    fault = PackedModel(model).fault(supervised(padded(rows, labels)), pack([], [[row] for row in rows], labels))
    assert fault == "the losses differ by nan a token"


def test_a_model_that_took_packed_batches_can_be_freed() -> None:
    model = tiny("Llama", {})
    rows, labels = sample()
    lean = PackedModel(model)
    lean.switch(packed=True)
    gradients(model, lean.losses(model, pack([], [[row] for row in rows], labels)).sum())
    alive = weakref.ref(model)
    del model, lean
    gc.collect()
    assert alive() is None


def test_the_head_is_given_only_what_predicts_a_label() -> None:
    model = tiny("Llama", {})
    rows, labels = sample()
    seen: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda head, inputs, output: seen.append(tuple(output.shape)))
    lean = PackedModel(model)
    batch = supervised(padded(rows, labels))
    few, all_ = lean.losses(model, batch), lean.losses(model, batch, supervised_only=False)
    assert seen == [(12, 97), (6, 21, 97)]
    torch.testing.assert_close(few, all_)


def test_equal_beginnings_stand_in_the_packed_tokens_once() -> None:
    rows, labels = (
        [[5, 6, 7, 8], [5, 6, 7, 9], [5, 6, 4]],
        [[NO_LOSS, NO_LOSS, 7, 8], [NO_LOSS] * 3 + [9], [NO_LOSS] * 3],
    )
    cuts: list[list[list[int]]] = [[row[2:3], row[3:]] for row in rows]
    batch = pack([5, 6], cuts, labels)
    assert batch["input_ids"].tolist() == [[5, 6, 7]]  # nothing is predicted from what comes after
    assert batch["position_ids"].tolist() == [[0, 1, 2]]
    assert batch["predictors"].tolist() == [1, 2]
    assert batch["predicted_from"].tolist() == [0, 1, 1]
    assert batch["shift_labels"].tolist() == [7, 8, 9]
    assert batch["rows"].tolist() == [0, 0, 1]
    assert [tree["tokens"].tolist() for tree in batch["trees"]] == [[[0, 1]], [[0]]]


def test_rows_part_where_their_segments_do() -> None:
    rows = [[[7], [8, 3]], [[4, 3]], [[7], [9, 3]]]
    batch = pack([5, 6], rows, [[*[NO_LOSS] * (1 + sum(map(len, row))), 3] for row in rows])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 3, 2]]
    assert batch["predictors"][batch["predicted_from"]].tolist() == [3, 5, 4]
    start, tree = batch["trees"]
    assert tree["tokens"].tolist() == [[0, 1, 2], [3, 3, 3]]
    assert tree["ends"].tolist() == [[3, 2, 3], [4, 0, 0]]  # 8 ends before 9, which does not see it
    assert tree["kept"].tolist() == [0, 1, 2, 3]
    assert [start["is_causal"], tree["is_causal"]] == [True, False]


def test_an_empty_segment_does_not_tie_rows_together() -> None:
    rows, labels = [[[], [5, 6, 1]], [[], [7, 6, 1]]], [[NO_LOSS, NO_LOSS, 1]] * 2
    tree = pack([], rows, labels)["trees"][1]
    assert tree["tokens"].tolist() == [[0, 1], [2, 3]]
    assert tree["is_causal"]


@pytest.mark.parametrize(("shared", "window"), [(0, 99), (9, 99), (0, 4), (9, 4)])
def test_no_place_in_the_attention_sees_nothing(shared: int, window: int) -> None:
    """Padding too: its softmax would have no number in float16, and neither would any gradient."""
    model = tiny("Llama", {})
    rows, labels = sample()
    lean = PackedModel(model)
    batch = pack(rows[0][:shared], [[row[shared:]] for row in rows], labels)
    with lean.switched(packed=True):
        lean.losses(model, batch)
        for tree in batch["trees"][shared == 0 :]:
            assert (lean._mask(tree, window, torch.float32) == 0).any(-1).all()


def test_a_batch_without_a_label_has_a_loss_that_can_go_back() -> None:
    model = tiny("Llama", {})
    lean = PackedModel(model)
    lean.switch(packed=True)
    batch = pack([], [[[0]]], [[NO_LOSS]])
    given = gradients(model, lean.losses(model, batch).sum())
    assert given
    assert not any(gradient.any() for gradient in given.values())


@pytest.mark.parametrize(
    ("sequences", "length"),
    [([[1, 2, 3], [1, 2, 4], [1, 2]], 2), ([[1], [2]], 0), ([[1, 2]], 2), ([[1, 2], [1, 2]], 2), ([[], [1]], 0)],
)
def test_what_sequences_begin_with(sequences: list[list[int]], length: int) -> None:
    assert shared_start(sequences) == length
