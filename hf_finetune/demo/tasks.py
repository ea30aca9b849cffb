"""Short conversations about a sentence of invented news; none asks whether it is good or bad news."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from hf_finetune.demo.document import Document, Part, punctuate
from hf_finetune.demo.scene import Scene

Answer = Callable[[Scene, str, dict[str, str]], str]
_ORDINALS = ("first", "second", "third")
_PROSE = ("share", "follow", "headline")


def conversation(scene: Scene, how: str) -> Document:
    """One or two questions with their answers, in the form of a chat."""
    sentence = punctuate(scene.sentence(scene.rng.choice(scene.event.lines)), how)
    turns = [_turn(scene, sentence, how) for _ in range(2 if scene.rng.random() < 0.2 else 1)]
    system = f"<|im_start|>system\n{_system(scene)}<|im_end|>\n" if scene.rng.random() < 0.3 else ""
    parts = [Part(system)]
    for question, answer in turns:
        parts.append(Part(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"))
        parts += [Part(f"{answer}<|im_end|>", follows=True), Part("\n")]
    return parts


def _system(scene: Scene) -> str:
    """A system message."""
    return scene.expand(scene.rng.choice(scene.book.systems))


def _turn(scene: Scene, sentence: str, how: str) -> tuple[str, str]:
    """A question that can be answered from `sentence`, and the answer."""
    while True:
        name = scene.rng.choices(list(_ANSWERS), [weight for weight, _ in _ANSWERS.values()])[0]
        facts = {"s": sentence}
        answer = _ANSWERS[name][1](scene, sentence, facts)
        if answer:
            return _worded(scene, name, facts), punctuate(answer, how) if name in _PROSE else answer


def _worded(scene: Scene, name: str, facts: dict[str, str]) -> str:
    """The task `name` in one of its wordings."""
    scene.known.update(facts)
    question = scene.expand(scene.rng.choice(scene.book.tasks[name]))
    for key in facts:
        del scene.known[key]
    return question


def _offer(rng: random.Random, facts: dict[str, str], right: str, others: list[str]) -> str:
    """The right answer, after putting it among the choices offered."""
    options = [right, *others]
    rng.shuffle(options)
    facts["choices"] = ", ".join(options)
    facts["choices_or"] = ", ".join(options[:-1]) + " or " + options[-1]
    return right


def _company(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The company as the sentence names it, if it does."""
    for name in (scene.known.get("full", ""), scene.fill("short")):
        if name and name in sentence:
            return name
    return ""


def _topic(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The topic of the sentence, offered among two to five."""
    right = scene.event.topic
    others = [topic for topic in scene.book.topics if topic != right]
    return _offer(scene.rng, facts, right, scene.rng.sample(others, scene.rng.choice((1, 2, 2, 3, 4))))


def _figure(up: str, down: str) -> Answer:
    """A function that tells which way the figure went, in these words."""

    def answer(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
        """The word for the direction, where the sentence gives both values."""
        new, old = scene.known.get("new", ""), scene.known.get("old", "")
        if not new or new == old or new not in sentence or old not in sentence:
            return ""
        return up if scene.event.direction == "up" else down

    return answer


def _share(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """A sentence on what the share did."""
    return scene.sentence(scene.rng.choice(scene.book.about_shares[scene.event.kind]))


def _follow(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """A sentence that fits what the event means."""
    key = scene.rng.choice(("any", scene.event.kind))
    return scene.sentence(scene.rng.choice(scene.book.after[key]))


def _headline(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The shortest of three other wordings, for events whose wordings all say the same."""
    if not scene.event.paraphrases:
        return ""
    lines = [scene.sentence(scene.rng.choice(scene.event.lines)) for _ in range(3)]
    return min(lines, key=len).rstrip(".")


def _finish(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The second part of the sentence, of which only the first is shown."""
    words = sentence.split(" ")
    if len(words) < 6:
        return ""
    cut = scene.rng.randint(3, len(words) - 2)
    facts["s"] = " ".join(words[:cut])
    return " ".join(words[cut:])


def _amount(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The amount of money that comes first in the sentence."""
    found = [(sentence.find(text), text) for text in scene.amounts if text in sentence]
    return min(found)[1] if found else ""


def _currency(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The currency of the amounts in the sentence."""
    return scene.currency if scene.currency in sentence else ""


def _mentioned(name: str) -> Answer:
    """A function that gives fact `name` if the sentence mentions it."""

    def answer(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
        """The fact, or nothing."""
        value = scene.known.get(name, "")
        return value if value and value in sentence else ""

    return answer


def _word(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """A word to be repeated."""
    facts["w"] = _any_word(scene)
    return facts["w"]


def _any_word(scene: Scene) -> str:
    """A word of any kind, often one that people use as a label."""
    draw = scene.rng.random()
    lists = scene.book.labels if draw < 0.35 else scene.book.everyday if draw < 0.6 else scene.book.vocabulary
    return scene.rng.choice(lists)


def _pick(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The first, second or third of the words listed."""
    words = [_any_word(scene) for _ in range(scene.rng.choice((3, 3, 4, 5)))]
    place = scene.rng.randrange(3)
    facts["choices"], facts["nth"] = ", ".join(words), _ORDINALS[place]
    return words[place]


def _memo(scene: Scene, sentence: str, facts: dict[str, str]) -> str:
    """The one of the words offered that the sentence contains."""
    inside = re.findall(r"[a-z]{4,}", sentence)
    others = [word for word in (_any_word(scene) for _ in range(2)) if word not in sentence]
    return _offer(scene.rng, facts, scene.rng.choice(inside), others) if inside and len(others) == 2 else ""


_ANSWERS: dict[str, tuple[int, Answer]] = {
    "company": (7, _company),
    "topic": (22, _topic),
    "rose": (4, _figure("yes", "no")),
    "higher": (4, _figure("higher", "lower")),
    "way": (4, _figure("up", "down")),
    "share": (16, _share),
    "follow": (12, _follow),
    "headline": (8, _headline),
    "finish": (6, _finish),
    "amount": (5, _amount),
    "currency": (3, _currency),
    "period": (4, _mentioned("period")),
    "person": (3, _mentioned("person")),
    "place": (3, _mentioned("city")),
    "word": (9, _word),
    "pick": (8, _pick),
    "memo": (5, _memo),
}
