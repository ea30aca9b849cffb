"""The loss curve as a picture."""

from pathlib import Path

from hf_finetune.files import read_jsonl, write_picture


def draw_loss_curve(log: Path, picture: Path) -> None:
    """Leaves a PNG of the training and the validation loss over the steps, from `training_log.jsonl`."""
    from matplotlib.figure import Figure

    lines = read_jsonl(log)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, label, marker in (("loss", "training", ""), ("eval_loss", "validation", "o")):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), marker=marker, label=label) if points else None
    axes.set_xlabel("step")
    axes.set_ylabel("loss on completion tokens (nats)")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
    write_picture(picture, figure)
