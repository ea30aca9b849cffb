"""TF-IDF on the same rows, which needs no GPU and often does as well: a regression, or the nearest row's answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.data.splits import varying_parts
from hf_finetune.errors import RecipeError
from hf_finetune.marks import checked_metrics
from hf_finetune.recipe import Recipe, shares_choices
from hf_finetune.report import Answer

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Inverse regularisation strengths of the regression; the validation split picks one."""


def check_baseline(recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]]) -> None:
    """Whether TF-IDF can answer the rows.

    Raises:
        RecipeError: when answers are open, there is nothing to learn from, prompts have no words, or scikit-learn is
            not installed.
    """
    from importlib.util import find_spec

    if not rows.get("train"):
        raise RecipeError(
            "baseline: TF-IDF learns from training rows, and there are none here. Leave baseline=tfidf out."
        )
    every = [row for own in rows.values() for row in own]
    if not shares_choices(recipe, every) and not _are_open(recipe, every):
        raise RecipeError(
            "baseline: TF-IDF can choose among answers that all rows share, or give the nearest row's, and this "
            "recipe's are others in each row. Leave baseline=tfidf out."
        )
    if find_spec("sklearn") is None:
        raise RecipeError("baseline: scikit-learn is not installed. Install it with: pip install 'hf_finetune[tfidf]'")
    try:
        if _are_open(recipe, every):
            _vectors(recipe, rows)
        else:
            _vectorizer().fit([recipe.prompt(row) for row in rows["train"]])
    except ValueError as error:
        raise RecipeError(
            f"baseline: TF-IDF finds no word in the prompts ({error}). Leave baseline=tfidf out."
        ) from error


def tfidf_answers(recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]]) -> list[Answer]:
    """The answers to the test rows by the words, and pairs of words, of the prompts of the training rows.

    Closed answers are those of a logistic regression, of the regularisation strength with the highest primary metric
    on the validation rows; an open answer is that of the training row whose prompt is nearest by cosine.
    """
    if _are_open(recipe, rows["test"]):
        return _nearest_answers(recipe, rows)
    return _regression_answers(recipe, rows)


def _are_open(recipe: Recipe[Any], rows: Sequence[Any]) -> bool:
    return all(recipe.choices(row) is None for row in rows)


def _nearest_answers(recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]]) -> list[Answer]:
    vectors = _vectors(recipe, rows)
    train = len(rows["train"])
    nearest = (vectors[train:] @ vectors[:train].T).argmax(axis=1).A1.tolist()
    texts = [recipe.completion(rows["train"][number]) for number in nearest]
    given = [(row, text, recipe.parse(text)) for row, text in zip(rows["test"], texts, strict=True)]
    return [Answer(text, prediction, recipe.correct(row, prediction)) for row, text, prediction in given]


def _vectors(recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]]) -> Any:
    """Of the training and the test prompts, in this order; what many share, as a schema, is no sign of likeness."""
    prompts = [recipe.prompt(row) for name in ("train", "test") for row in rows[name]]
    return _vectorizer().fit_transform(varying_parts(prompts))


def _regression_answers(recipe: Recipe[Any], rows: Mapping[str, Sequence[Any]]) -> list[Answer]:
    from sklearn.linear_model import LogisticRegression

    answers = [recipe.completion(row) for row in rows["train"]]
    if len(set(answers)) == 1:  # there is nothing to learn
        return [_answer(recipe, row, {answers[0]: 1.0}) for row in rows["test"]]
    vectorizer = _vectorizer()
    train = vectorizer.fit_transform([recipe.prompt(row) for row in rows["train"]])

    def asked(model: Any, some: Sequence[Any]) -> list[Answer]:
        shares = model.predict_proba(vectorizer.transform([recipe.prompt(row) for row in some]))
        named = [dict(zip(model.classes_.tolist(), row.tolist(), strict=True)) for row in shares]
        return [_answer(recipe, row, own) for row, own in zip(some, named, strict=True)]

    def mark(model: Any) -> float:
        predictions = [answer.prediction for answer in asked(model, rows["validation"])]
        return checked_metrics(recipe, rows["validation"], predictions, "validation split")[recipe.primary_metric]

    models = [
        LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(train, answers)
        for strength in STRENGTHS
    ]
    return asked(max(models, key=mark), rows["test"])


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)


def _answer(recipe: Recipe[Any], row: Any, known: Mapping[str, float]) -> Answer:
    """The likeliest answer; choices that no training row has get nothing."""
    probabilities = {choice: known.get(choice, 0.0) for choice in recipe.choices(row) or ()}
    text = max(probabilities, key=probabilities.__getitem__)
    prediction = recipe.parse(text)
    return Answer(text, prediction, recipe.correct(row, prediction), probabilities)
