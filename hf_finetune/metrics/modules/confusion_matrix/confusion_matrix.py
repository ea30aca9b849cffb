"""The confusion matrix as a module of the `evaluate` package, for text answers; loads without a network."""

from hf_finetune.metrics import confusion_matrix
from hf_finetune.metrics.module import LABELS, MetricModule, readable


class ConfusionMatrix(MetricModule):
    """The rows of each label by their answer: `compute(references=..., predictions=..., labels=["no", "yes"])`.

    Down and across in the order of `labels` (all that occur, by name, if not given); one more column counts the
    answers that are empty or no label.
    """

    columns = LABELS

    def _compute(
        self, references: list[str], predictions: list[str], labels: list[str] | None = None
    ) -> dict[str, list[list[int]]]:
        chosen = labels or sorted({*references, *filter(None, predictions)})
        return {"confusion_matrix": confusion_matrix(references, readable(predictions), chosen)}
