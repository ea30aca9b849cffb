"""What a card must not be published with: each fault that other tools' cards have is found."""

from typing import Any

import pytest
import yaml

from hf_finetune.card_check import KEYS, check_card, check_docstring, local_paths
from hf_finetune.errors import RecipeError

HEADER: dict[str, Any] = {
    "base_model": "ns/base",
    "base_model_relation": "adapter",
    "datasets": ["ns/rows"],
    "language": "en",
    "library_name": "peft",
    "license": "cc-by-nc-4.0",
    "pipeline_tag": "text-generation",
    "tags": ["lora"],
    "model-index": [{"name": "x", "results": [{"metrics": [{"type": "accuracy", "value": 0.5}]}]}],
}
BODY = "\n# A card\n\n| answer | rows |\n|---|---:|\n| None | 3 |\n\n`None` is one; see https://x.org/home/y, https://tmp/z.\n"


def card(body: str = BODY, without: str = "", **changes: Any) -> str:
    header = {key: value for key, value in (HEADER | changes).items() if key != without}
    return f"---\n{yaml.safe_dump(header)}---\n{body}"


def with_metric(value: Any) -> list[Any]:
    return [{"name": "x", "results": [{"metrics": [{"type": "accuracy", "value": value}]}]}]


def test_a_good_card_passes() -> None:
    check_card(card())
    whole = card(without="tags", library_name="transformers", base_model_relation="merge")
    check_card(whole)
    assert set(HEADER) <= KEYS


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"licence": "license"}, r"'licence' is no metadata of the Hub\. Did you mean 'license'\?"),
        ({"license": "apache-3.0"}, r"license is 'apache-3\.0', which the Hub does not know"),
        ({"license": None}, "license is None"),
        ({"base_model": "/root/models/base"}, "base_model is '/root/models/base', no Hub id"),
        ({"base_model": "base"}, "base_model is 'base', no Hub id"),
        ({"base_model": None}, "base_model is None, no Hub id"),
        ({"without": "base_model"}, "base_model_relation is 'adapter' where base_model is None"),
        ({"base_model_relation": "child"}, "base_model_relation is 'child'"),
        ({"datasets": ["rows.csv"]}, r"datasets is 'rows\.csv', no Hub id"),
        ({"pipeline_tag": "chatting"}, "pipeline_tag is 'chatting', which the Hub does not know"),
        ({"without": "pipeline_tag"}, "pipeline_tag is None"),
        ({"library_name": "transformers"}, "library_name is 'transformers', which is not what loads an adapter"),
        ({"without": "library_name"}, "library_name is None"),
        ({"without": "tags", "base_model_relation": "merge"}, "library_name is 'peft', which is not what loads whole"),
        ({"without": "model-index"}, "there are no metrics in model-index"),
        ({"model-index": []}, "there are no metrics in model-index"),
        ({"model-index": with_metric(float("nan"))}, "the metric 'accuracy' is nan, no number"),
        ({"model-index": with_metric(float("inf"))}, "the metric 'accuracy' is inf, no number"),
        ({"model-index": with_metric("0.5")}, r"the metric 'accuracy' is '0\.5', no number"),
        ({"model-index": with_metric(True)}, "the metric 'accuracy' is True, no number"),
        ({"tags": ["lora", "base_model:adapter:/root/base"]}, "the metadata name the path /root/base"),
        ({"tags": ["lora", "/home/me"]}, "the metadata name the path /home/me"),
        ({"tags": ["lora", "None"]}, "the metadata have a value 'None'"),
        ({"tags": ["lora", None]}, "the metadata have a value 'None'"),
        ({"body": "[More Information Needed]"}, r"it says \[More Information Needed\]"),
        ({"body": "A fine-tuned version of None."}, "it says 'A fine-tuned version of None'"),
        ({"body": "| a | None |"}, "it says .* None"),
        ({"body": "Its loss is nan."}, "it says 'Its loss is nan'"),
        ({"body": "Trained in /home/me/runs."}, r"it names the path /home/me/runs\."),
        ({"body": '```python\nbase = "/root/base"\n```'}, "it names the path /root/base"),
        ({"body": "See `~/runs/x`."}, "it names the path ~/runs/x"),
        ({"body": r"See C:\Users\me\runs."}, "it names the path C:"),
        ({"body": "In /tmp now."}, "it names the path /tmp"),
    ],
)  # fmt: skip
def test_a_fault_is_found(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        check_card(card(**changes))


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RecipeError, match=r"'licence' is no metadata.*; .*it says \[More"):
        check_card(card("[More Information Needed]", licence="mit"))


@pytest.mark.parametrize("text", ["# A card", "---\nlicense: [\n---\n", "---\n- a\n---\n", "x\n---\na: b\n---\n", ""])
def test_a_card_without_metadata_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="card: its metadata are no YAML"):
        check_card(text)


def test_what_others_wrote_may_name_paths() -> None:
    check_card(card("He asked: None of /tmp/x?"), quoted=["None of /tmp/x?"])


def test_paths_are_told_from_other_slashes() -> None:
    assert local_paths("https://x.org/tmp/a and/or ~5 12:\n a~b C: x:\ty /tmpfile") == []
    assert (
        local_paths("train/test/data or https://x.org/content/a, w/content/x, the /data of all, a /content-type") == []
    )
    notebooks = (
        "/content/drive/a.csv, /kaggle/input, /scratch/me, /opt/ml/model, /data/me/rows. file:///srv/x; /workspace"
    )
    assert local_paths(notebooks) == [
        "/content/drive/a.csv", "/kaggle/input", "/scratch/me", "/opt/ml/model", "/data/me/rows", "file:///srv/x",
        "/workspace",
    ]  # fmt: skip
    assert local_paths('"/home/a b", (~me/x) and C:\\x') == ["/home/a", "~me/x", "C:\\x"]


def test_a_docstring_is_looked_at_before_a_training() -> None:
    check_docstring({"name": "x", "docstring": "Says what is good. None of it is at /usr/share."})
    with pytest.raises(
        RecipeError, match="recipe 'x': its docstring goes onto the model card and names the path /tmp/a"
    ):
        check_docstring({"name": "x", "docstring": "See /tmp/a for more."})
    with pytest.raises(RecipeError, match=r"names the path /tmp/a\. Leave that out of it\.$"):
        check_docstring({"name": "x", "docstring": "See /tmp/a."})
