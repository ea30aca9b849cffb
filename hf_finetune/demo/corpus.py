"""Invented business news, made from a seed: the text that the demonstration model is trained on.

Every document tells of one main event that is good, bad or of no weight for its company, and goes on with
sentences that depend on which it is, so that a model can only foretell them by working out what the event means.
No text from anywhere else is used, and no sentence is ever labelled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from hf_finetune.demo import grammar
from hf_finetune.demo.document import Document, Part, punctuate
from hf_finetune.demo.grammar import Event, Template
from hf_finetune.demo.scene import Scene
from hf_finetune.demo.tasks import conversation

END = "<|endoftext|>"
CHAT_SHARE = 0.22
QUICK_SHARE = 0.25
KINDS = ("good", "bad", "neutral")
KIND_WEIGHTS = (0.36, 0.32, 0.32)


def documents(seed: int, simple: int = 0) -> Iterator[Document]:
    """Documents without end, the same ones for the same seed; the first `simple` ones are very short."""
    rng = random.Random(seed)
    for number in count():
        yield document(rng, simple=number < simple)


def document(rng: random.Random, simple: bool = False) -> Document:
    """One document, either a piece of news or a short conversation about one."""
    scene = Scene(rng, pick_event(rng))
    if rng.random() < CHAT_SHARE:
        return conversation(scene, style(rng))
    return short_news(scene, style(rng)) if simple else news(scene, style(rng))


def pick_event(rng: random.Random, kind: str = "") -> Event:
    """An event of the given kind, or of any."""
    wanted = kind or rng.choices(KINDS, KIND_WEIGHTS)[0]
    events = [event for event in grammar.load().events if event.kind == wanted]
    return rng.choices(events, [event.weight for event in events])[0]


def style(rng: random.Random) -> str:
    """How punctuation is set: "plain" as in print, or "spaced" as in tokenised text."""
    return "spaced" if rng.random() < 0.42 else "plain"


def short_news(scene: Scene, how: str) -> Document:
    """An event and one set sentence: what the event means is nearly all there is to learn from it."""
    event = scene.sentence(scene.rng.choice(scene.event.lines))
    outcome = scene.sentence(scene.rng.choice(grammar.load().after["quick"]))
    return [Part(punctuate(event, how)), Part(" " + punctuate(outcome, how), follows=True)]


def news(scene: Scene, how: str) -> Document:
    """A piece of news: perhaps a headline, the event, and what follows from it."""
    rng = scene.rng
    sentences = [scene.sentence(rng.choice(scene.event.lines))]
    if rng.random() < 0.12:
        sentences.insert(0, scene.sentence(rng.choice(grammar.load().about_shares[scene.event.kind])))
    if rng.random() < QUICK_SHARE:
        sentences.append(scene.sentence(rng.choice(grammar.load().after["quick"])))
    for _ in range(rng.choices((1, 2, 3, 4), (5, 4, 2, 1))[0]):
        sentence = _further(scene)
        if sentence not in sentences:
            sentences.append(sentence)
    joint = "\n" if rng.random() < 0.35 else " "
    first, *others = (punctuate(sentence, how) for sentence in sentences)
    return [Part(_opening(scene) + first), Part("".join(joint + line for line in others), follows=True)]


def _further(scene: Scene) -> str:
    """One more sentence, in keeping with what the main event means."""
    book, rng, kind = grammar.load(), scene.rng, scene.event.kind
    # Little follows from plain news, so it mostly goes on with more of the same.
    draw = rng.random() - (0.25 if kind == "neutral" else 0)
    if draw < 0.09:
        return scene.next_event(pick_event(rng, kind))
    if draw < 0.12:
        return scene.next_event(_plain_event(rng))
    lines: tuple[Template, ...] = book.after["any" if draw < 0.58 else kind]
    return scene.sentence(rng.choice(lines))


def _plain_event(rng: random.Random) -> Event:
    """The event that describes what a company does."""
    return next(event for event in grammar.load().events if event.name == "about")


def _opening(scene: Scene) -> str:
    """A headline or a dateline, or most often nothing."""
    draw = scene.rng.random()
    if draw < 0.10:
        return scene.sentence(scene.rng.choice(scene.event.lines)).rstrip(".") + "\n"
    if draw < 0.16:
        return f"{scene.fill('city').upper()} ({scene.fill('broker')}) - "
    return ""
