"""The page of a run: everything in one file, hostile texts stay texts, and a browser shows what the files hold."""

import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hf_finetune.compare import Comparison, Pair, write_html
from hf_finetune.files import read_json, read_jsonl, write_json, write_jsonl
from hf_finetune.page import render_page, write_page
from hf_finetune.pictures import Axis, Mark, intervals, number, percent, signed
from hf_finetune.recipe import Recipe
from hf_finetune.report import Answer, Gate, Report
from hf_finetune.scoring import make_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LABELS = ("negative", "neutral", "positive")
HOSTILE = (
    "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    " \u2028\u2029 {{ 7 * 7 }} {% raw %} &amp; ]]> '\" <!-- \U0001f600 \u202eעברית"
)
NEW_FIELDS = "labels by_class confusion calibration perplexity pass_at_k general_loss gates".split()


@dataclass(frozen=True)
class Question:
    text: str
    answer: str


class Asked(Recipe[Question]):
    """Closed answers where it is given labels, else open ones."""

    name = "asked"
    primary_metric = "accuracy"

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = labels

    def prompt(self, row: Question) -> str:
        return f"What does this sentence say of the share price?\n\n{row.text}"

    def completion(self, row: Question) -> str:
        return row.answer

    def choices(self, row: Question) -> Sequence[str] | None:
        return self.labels or None

    def parse(self, text: str) -> str | None:
        return text or None

    def score(self, rows: Sequence[Question], predictions: Sequence[Any]) -> dict[str, float]:
        right = [self.correct(row, prediction) for row, prediction in zip(rows, predictions, strict=True)]
        return {"accuracy": sum(right) / len(right)}


def chosen(chance: random.Random, row: Question, labels: Sequence[str], skill: float) -> Answer:
    """A choice that is the likelier to be right the more skill there is; some cannot be read."""
    weights = [chance.random() + skill * (label == row.answer) for label in labels]
    shares = {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}
    text = max(labels, key=shares.__getitem__)
    prediction = None if chance.random() < 0.05 else text
    return Answer(text, prediction, prediction == row.answer, shares, chance.random())


def written(chance: random.Random, row: Question, skill: float) -> Answer:
    """The gold text, another one, or none."""
    other = chance.choice(["", f"{row.answer}\nand more"])
    text = row.answer if chance.random() < skill else other
    return Answer(text, text or None, text == row.answer, None, chance.random(), chance.randrange(5))


def make_run(
    folder: Path, count: int = 90, labels: Sequence[str] = LABELS, texts: Sequence[str] = (), gold: str = "memo",
    **changes: Any,
) -> Path:  # fmt: skip
    """A folder with the report and the answers of four models; open answers where there are no labels."""
    chance = random.Random(0)
    recipe = Asked(labels)
    texts = texts or [
        f"Sentence {number} tells of {chance.choice(['profit', 'loss', 'rain'])}." for number in range(count)
    ]
    rows = [Question(text, chance.choice(labels) if labels else f"{gold} {i}") for i, text in enumerate(texts)]

    def draw(skill: float) -> list[Answer]:
        return [chosen(chance, row, labels, skill) if labels else written(chance, row, skill) for row in rows]

    answers = {"tfidf": [draw(0.5)], "base": [draw(0.2)], "few_shot": [draw(0.6), draw(0.7)], "tuned": [draw(0.5)]}
    report = make_report(
        recipe, rows, rows, answers, gold_tokens=[1] * len(rows), num_examples=4, num_samples=0 if labels else 4,
        general_loss={"base": 2.0, "tuned": 2.25, "low": 0.1, "high": 0.4}, resamples=50,
    )  # fmt: skip
    gates = [Gate("accuracy", "at least", 0.2, 0.7, True), Gate("forgetting", "at most", 0.1, 0.25, False)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", asdict(replace(report, gates=gates, **changes)))
    write_jsonl(folder / "answers.jsonl", [line(recipe, row, i, answers) for i, row in enumerate(rows)])
    return folder


def line(recipe: Asked, row: Question, index: int, answers: Mapping[str, Sequence[Sequence[Answer]]]) -> dict[str, Any]:
    draws = {name: [asdict(draw[index]) for draw in own] for name, own in answers.items()}
    one = {name: own if name == "few_shot" else own[0] for name, own in draws.items()}
    return {"prompt": recipe.prompt(row), "gold": row.answer, **one}


def add_training(folder: Path) -> Path:
    """What a run leaves besides, and an evaluation of somebody else's adapter does not."""
    losses = [{"step": step, "loss": 2 / step} for step in (10, 20, 30, 40)]
    write_jsonl(
        folder / "training_log.jsonl", [*losses, {"step": 20, "eval_loss": 0.3}, {"step": 40, "eval_loss": 0.4}]
    )
    splits = ("train", "validation", "test")
    data = {
        "source": {"name": "rows.csv", "commit": None}, "rows": dict.fromkeys(splits, 9),
        "answers": {split: dict.fromkeys(LABELS, 3) for split in splits},
        "tokens": {split: {"median": 58, "longest": 110, "sum": 37468} for split in splits},
    }  # fmt: skip
    write_json(folder / "data.json", data)
    run = {
        "base_model": {"name": "ns/base", "commit": "0123"}, "hardware": {"cpu": "a processor", "gpus": []},
        "training": {"steps": 40, "best_step": 20, "trainable_parameters": 1000},
        "totals": {"training_seconds": 12.5, "peak_memory_gib": 1.25}, "license": "mit",
    }  # fmt: skip
    write_json(folder / "run.json", run)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with everything, and its page."""
    folder = add_training(make_run(tmp_path_factory.mktemp("run")))
    write_page(folder)
    return folder


class Sections(HTMLParser):
    """The ids of the sections, the tags and the attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.sections += [dict(attrs)["id"] or ""] if tag == "section" else []


def sections(folder: Path) -> list[str]:
    return Sections(render_page(folder)).sections


ALL_SECTIONS = "gates comparison got-worse classes calibration loss rows answers".split()


def test_a_run_with_everything_has_all_sections(run: Path) -> None:
    assert sections(run) == ALL_SECTIONS


def test_the_page_is_left_beside_the_report(run: Path) -> None:
    assert write_page(run) == run / "report.html"
    assert (run / "report.html").read_text(encoding="utf-8") == render_page(run)


def test_the_same_files_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "elsewhere"))
    assert render_page(copy) == render_page(run)


def test_an_evaluation_without_a_training_has_no_loss_and_no_facts(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert sections(folder) == [name for name in ALL_SECTIONS if name != "loss"]
    assert "How it was made" not in render_page(folder)


def test_a_report_of_before_there_were_classes_and_calibration_is_still_shown(tmp_path: Path) -> None:
    folder = add_training(make_run(tmp_path))
    old = read_json(folder / "report.json")
    for name in NEW_FIELDS:
        del old[name]
    write_json(folder / "report.json", old)
    assert sections(folder) == ["comparison", "got-worse", "loss", "rows", "answers"]


def test_open_answers_have_no_classes_and_no_order_of_confidence(tmp_path: Path) -> None:
    folder = make_run(tmp_path, labels=())
    assert sections(folder) == ["gates", "comparison", "got-worse", "rows", "answers"]
    page = render_page(folder)
    assert "pass@4" in page
    assert "answers of the fine-tuned model" in page
    assert 'id="sort"' not in page
    assert 'id="label"' not in page


def test_the_page_asks_for_nothing_but_itself(run: Path) -> None:
    page = Sections(render_page(run))
    resources = [
        (tag, name, value) for tag, name, value in page.attributes if name in ("src", "href", "action", "data")
    ]
    assert resources
    assert all(value.startswith("#") or value == "data:," for _, _, value in resources)
    assert not re.search(r"https?:|@import|url\(", render_page(run))


def test_the_policy_of_the_page_forbids_all_requests(run: Path) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', render_page(run))
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(r"connect-src|\*|https?:", policy)


def test_hostile_texts_add_no_markup(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain", texts=["a", "b", "c"], labels=("x", "y"))
    hostile = make_run(tmp_path / "hostile", texts=[HOSTILE, HOSTILE + "b", "c"], labels=("x", HOSTILE), recipe=HOSTILE)
    page = render_page(hostile)
    tags, usual = Sections(page).tags, Sections(render_page(plain)).tags
    assert set(tags) == set(usual)
    assert tags.count("script") == usual.count("script") == 2
    assert "<img" not in page
    assert "\u2028" not in page.partition('id="answers-data"')[2]


def test_the_answers_in_the_page_are_those_of_the_file(run: Path) -> None:
    embedded = embedded_answers(run)
    prompts = [embedded["beginning"] + row[0] for row in embedded["rows"]]
    given = read_jsonl(run / "answers.jsonl")
    assert prompts == [row["prompt"] for row in given]
    assert embedded["beginning"] == "What does this sentence say of the share price?\n\nSentence "
    at = 3 + [name for name, _ in embedded["columns"]].index("tuned")
    marks = [-1 if row["tuned"]["prediction"] is None else int(row["tuned"]["correct"]) for row in given]
    assert [row[at][:2] for row in embedded["rows"]] == [
        [row["tuned"]["text"], mark] for row, mark in zip(given, marks, strict=True)
    ]


def embedded_answers(folder: Path) -> dict[str, Any]:
    (text,) = re.findall(r'id="answers-data">(.*?)</script>', render_page(folder), re.S)
    answers: dict[str, Any] = json.loads(text)
    return answers


def test_an_answer_read_as_something_else_than_its_text_says_what(tmp_path: Path) -> None:
    folder = make_run(tmp_path, labels=(), count=2)
    rows = read_jsonl(folder / "answers.jsonl")
    rows[0]["tuned"] |= {"text": "It is 7.", "prediction": {"value": 7}}
    write_jsonl(folder / "answers.jsonl", rows)
    assert embedded_answers(folder)["rows"][0][-1][4] == '{"value": 7}'


def test_one_row_is_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path, count=1)
    assert "1 test row<" in render_page(folder)
    assert embedded_answers(folder)["beginning"] == ""


def test_one_class_is_shown(tmp_path: Path) -> None:
    assert "classes" in sections(make_run(tmp_path, labels=("only",)))


def test_answers_none_of_which_can_be_read_are_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path, count=5)
    rows = read_jsonl(folder / "answers.jsonl")
    for answer in [answer for row in rows for answer in (row["base"], row["tuned"])]:
        answer |= {"text": "", "prediction": None, "correct": False}
    write_jsonl(folder / "answers.jsonl", rows)
    matrix = [[0, 0, 0, 2], [0, 0, 0, 2], [0, 0, 0, 1]]
    changed = read_json(folder / "report.json") | {
        "unreadable": {"base": 5, "tuned": 5}, "confusion": {"base": matrix, "tuned": matrix}, "calibration": {},
    }  # fmt: skip
    write_json(folder / "report.json", changed)
    assert "<span>unreadable</span>" in render_page(folder)


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [([0.1, 0.3], "Helped"), ([-0.1, 0.3], "No measurable gain"), ([-0.3, -0.1], "Worse")],
)
def test_the_verdict_is_a_word_and_not_a_colour_alone(tmp_path: Path, ends: list[float], outcome: str) -> None:
    folder = make_run(tmp_path)
    report = Report.read(folder)
    report.intervals["gain"] = ends
    write_json(folder / "report.json", asdict(report))
    assert f'<p class="word">{outcome}</p>' in render_page(folder)


def test_a_missed_gate_and_what_got_worse_are_named(run: Path) -> None:
    page = render_page(run)
    assert page.count("✗ missed") == page.count("✓ held") == 1
    (table,) = re.findall(r"Fine-tuned is worse than the base in these.*?</table>", page, re.S)
    assert "loss on general questions" in table
    assert "+0.250" in table


def test_every_table_has_a_caption_and_every_picture_a_name(run: Path) -> None:
    page = Sections(render_page(run))
    assert page.tags.count("table") == page.tags.count("caption") > 5
    pictures = [name for tag, name, value in page.attributes if tag == "svg" and (name, value) == ("role", "img")]
    names = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(pictures) == len(names) > 10
    assert all(names)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.11, 0.8], [0.0, 0.2, 0.4, 0.6, 0.8]),
        ([-0.03, 0.02], [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02]),
        ([0.5, 0.5], [0.4, 0.5]),
        ([0, 0], [0.0, 0.2]),
        ([0, 1234], [0, 500, 1000, 1500]),
        ([], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_an_axis_has_round_ticks_and_holds_all_values(values: list[float], ticks: list[float]) -> None:
    axis = Axis.over(values)
    assert axis.ticks == pytest.approx(ticks)
    assert all(0 <= axis.at(value) <= 100 for value in values)


def test_numbers_are_written_in_one_way() -> None:
    assert [number(0.12345), number(1200), number(None), number(1234.5, 1)] == ["0.123", "1,200", "–", "1,234.5"]
    assert [signed(0.5), signed(-0.25)] == ["+0.500", "−0.250"]
    assert [percent(0), percent(0.0123), percent(0.123), percent(1)] == ["0 %", "1.2 %", "12 %", "100 %"]


# In a browser

KINDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "all": lambda row: True,
    "differ": lambda row: row["base"]["prediction"] != row["tuned"]["prediction"],
    "corrected": lambda row: row["tuned"]["correct"] and not row["base"]["correct"],
    "worse": lambda row: row["base"]["correct"] and not row["tuned"]["correct"],
    "wrong": lambda row: not row["tuned"]["correct"],
    "both_wrong": lambda row: not row["base"]["correct"] and not row["tuned"]["correct"],
    "unreadable": lambda row: None in (row["base"]["prediction"], row["tuned"]["prediction"]),
    "few_shot": lambda row: all(draw["correct"] for draw in row["few_shot"]) and not row["tuned"]["correct"],
}
"""Which rows a filter shows; of two draws, both are the most."""

CONTRAST = """() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const known = {};
    const rgba = (color) => known[color] ??= (() => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    })();
    const light = (color) => {
        const [r, g, b] = color.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = rgba(getComputedStyle(at).backgroundColor);
            if (color[3] === 255) return color.slice(0, 3);
        }
        return rgba(getComputedStyle(document.body).backgroundColor).slice(0, 3);
    };
    const ofText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.body.querySelectorAll('*')]
        .filter((element) => ofText(element) && element.checkVisibility())
        .filter((element) => !element.closest('.hidden, .skip, :disabled, script'))
        .map((element) => {
            const style = getComputedStyle(element);
            const text = rgba(element.closest('svg') ? style.fill : style.color).slice(0, 3);
            const [low, high] = [light(text), light(ground(element))].sort((a, b) => a - b);
            return [(high + 0.05) / (low + 0.05), element.tagName + ' ' + element.textContent.trim().slice(0, 40)];
        });
}"""
"""The contrast (WCAG 2.2) of each element that holds text itself, and what it is."""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium; where there is none, tests are skipped, unless HF_FINETUNE_REQUIRE_BROWSER is set."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return missing("playwright is not installed")
    if found is None:
        return missing("no chromium, chromium-browser or google-chrome on PATH")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def missing(reason: str) -> None:
    if os.environ.get("HF_FINETUNE_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def opened(browser: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Opens a page, of a run by its folder; what it logs, throws or asks the network for fails the test in the end."""
    faults: list[str] = []
    contexts = []

    def open_page(place: Path, fragment: str = "", width: int = 1280, **options: Any) -> "Page":
        address = (place if place.is_file() else write_page(place)).as_uri()
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda asked: faults.append(asked.url) if asked.url.split("#")[0] != address else None)
        page.goto(address + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def shown(page: "Page") -> list[int]:
    """Numbers of the rows that are shown, over all pages of the table."""
    numbers: list[int] = []
    while True:
        numbers += [int(text) - 1 for text in page.locator(".answers .open").all_text_contents()]
        if page.locator("#next").is_disabled():
            return numbers
        page.locator("#next").click()


def told(page: "Page") -> int:
    """How many rows the page says that it has found."""
    text = page.locator("#count").inner_text()
    return int(re.findall(r"of ([\d,]+)", text)[0].replace(",", "")) if " of " in text else 0


def until(page: "Page", is_so: Callable[[], bool], tries: int = 200) -> None:
    """Waits, for the page waits too until nobody types; not wait_for_function(), which the page's policy forbids."""
    for _ in range(tries):
        if is_so():
            return
        page.wait_for_timeout(25)
    pytest.fail("it has not come about")


def rows_where(folder: Path, wanted: Callable[[dict[str, Any]], bool]) -> list[int]:
    return [i for i, row in enumerate(read_jsonl(folder / "answers.jsonl")) if wanted(row)]


def tab_to(page: "Page", selector: str, limit: int = 80) -> None:
    """Presses Tab until the focus is on such an element, which must then be marked."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            marked = "(document.activeElement.closest('.pills label') || document.activeElement)"
            assert page.evaluate(f"parseFloat(getComputedStyle({marked}).outlineWidth)") >= 2
            assert page.evaluate(f"getComputedStyle({marked}).outlineStyle") == "solid"
            return
    pytest.fail(f"Tab does not reach {selector}")


Opened = Callable[..., "Page"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_shows_the_rows_it_names(run: Path, opened: Opened, kind: str) -> None:
    page = opened(run)
    page.locator(f"input[value={kind}]").check()
    expected = rows_where(run, KINDS[kind])
    assert expected
    assert told(page) == len(expected)
    assert shown(page) == expected
    assert page.locator(f"label:has(input[value={kind}]) .soft").inner_text() == str(len(expected))


@pytest.mark.slow
def test_a_gold_label_a_filter_and_a_search_all_count(run: Path, opened: Opened) -> None:
    page = opened(run)
    page.locator("#label").select_option("neutral")
    page.locator("input[value=wrong]").check()
    page.locator("#search").fill("TELLS of Rain")
    expected = rows_where(
        run, lambda row: row["gold"] == "neutral" and not row["tuned"]["correct"] and "tells of rain" in row["prompt"]
    )
    assert 0 < len(expected) < 20
    until(page, lambda: told(page) == len(expected))
    assert shown(page) == expected


@pytest.mark.slow
def test_a_search_for_what_is_nowhere_shows_no_row_and_says_so(run: Path, opened: Opened) -> None:
    page = opened(run)
    page.locator("#search").fill("<b>nowhere")
    until(page, lambda: page.locator("#count").inner_text().startswith("No row"))
    assert shown(page) == []
    assert page.locator("#count").get_attribute("aria-live") == "polite"


@pytest.mark.slow
@pytest.mark.parametrize(("order", "sign"), [("sure", -1), ("unsure", 1)])
def test_rows_are_sorted_by_how_sure_the_fine_tuned_model_is(run: Path, opened: Opened, order: str, sign: int) -> None:
    sure = [max(row["tuned"]["probabilities"].values()) for row in read_jsonl(run / "answers.jsonl")]
    numbers = shown(opened(run, f"#sort={order}"))
    found = [round(sure[i], 4) for i in numbers]
    assert sorted(numbers) == list(range(len(sure)))
    assert found == sorted(found, key=lambda share: sign * share)


@pytest.mark.slow
def test_a_filtered_view_has_an_address(run: Path, opened: Opened) -> None:
    page = opened(run)
    page.locator("input[value=worse]").check()
    page.locator("#search").fill("profit")
    until(page, lambda: "profit" in page.url)
    page.locator(".answers .open").first.click()
    address = page.url.partition("#")[2]
    again = opened(run, f"#{address}")
    assert again.locator("input[value=worse]").is_checked()
    assert again.locator("#search").input_value() == "profit"
    assert again.locator(".opened").count() == 1
    assert again.evaluate("document.getElementById('answers').getBoundingClientRect().top") < 100
    assert shown(again) == shown(page) != []


@pytest.mark.slow
def test_an_address_that_names_nothing_known_shows_all_rows(run: Path, opened: Opened) -> None:
    assert told(opened(run, "#show=nothing&label=none&sort=odd&page=999&open=12345,x")) == 90


@pytest.mark.slow
def test_the_button_beside_the_spoiled_rows_shows_them(run: Path, opened: Opened) -> None:
    page = opened(run)
    page.locator("[data-show=worse]").click()
    assert told(page) == len(rows_where(run, KINDS["worse"])) == Report.read(run).spoiled


@pytest.mark.slow
def test_the_keyboard_alone_filters_searches_and_opens_a_row(run: Path, opened: Opened) -> None:
    page = opened(run)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    tab_to(page, "input[name=show]")
    page.keyboard.press("ArrowRight")
    assert page.url.endswith("#show=differ")
    assert told(page) == len(rows_where(run, KINDS["differ"]))
    tab_to(page, "#search")
    tab_to(page, ".open")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    second = rows_where(run, KINDS["differ"])[1]
    assert page.locator(f"#opened-{second}").is_visible()
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("Space")
    assert page.locator(".opened").count() == 0


@pytest.mark.slow
def test_an_opened_row_shows_everything_as_text(tmp_path: Path, opened: Opened) -> None:
    folder = make_run(tmp_path, texts=[HOSTILE, "a"], labels=("x", HOSTILE), recipe=HOSTILE)
    page = opened(folder, "#open=1,2")
    row = read_jsonl(folder / "answers.jsonl")[0]
    prompt, gold, *_ = page.locator("#opened-0 .text").all_text_contents()
    assert (prompt, gold) == (row["prompt"], row["gold"])
    assert page.locator("#opened-0 .odds").count() == 5  # of TF-IDF, base, two draws of few-shot, fine-tuned
    assert page.title().startswith("</script>")
    assert page.locator("h1").inner_text().startswith("</script>")


@pytest.mark.slow
def test_the_bar_of_a_choice_is_as_long_as_the_choice_is_likely(run: Path, opened: Opened) -> None:
    page = opened(run, "#open=1")
    likely = list(read_jsonl(run / "answers.jsonl")[0]["tuned"]["probabilities"].values())
    bars = page.locator("#opened-0 .of-tuned .odds i").all()
    drawn = [bar.evaluate("whole => whole.firstChild.offsetWidth / whole.offsetWidth") for bar in bars]
    assert drawn == pytest.approx(likely, abs=0.02)  # a pixel, of some hundred


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("labels", [LABELS, tuple(f"a class with a long name: number {i}" for i in range(12)), ()])
def test_the_page_is_never_wider_than_the_window(
    tmp_path: Path, opened: Opened, labels: Sequence[str], width: int
) -> None:
    page = opened(add_training(make_run(tmp_path, labels=labels, gold="m" * 300)), "#open=1", width=width)
    assert page.locator(".opened").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_told_from_its_ground(run: Path, opened: Opened, scheme: str) -> None:
    found = opened(run, "#show=wrong&open=1,2,3,4,5", color_scheme=scheme).evaluate(CONTRAST)
    assert len(found) > 200
    assert [(round(ratio, 2), what) for ratio, what in found if ratio < 4.5] == []


@pytest.mark.slow
def test_dark_is_dark(run: Path, opened: Opened) -> None:
    grounds = [
        opened(run, color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    light, dark = ([int(part) for part in re.findall(r"\d+", ground)] for ground in grounds)
    assert min(light) > 200 > 60 > max(dark)


@pytest.mark.slow
def test_without_javascript_everything_but_the_browsing_is_there(run: Path, opened: Opened) -> None:
    page = opened(run, java_script_enabled=False)
    assert page.locator("#comparison .track").first.is_visible()
    assert page.locator("noscript").inner_text().startswith("Browsing the answers needs JavaScript")
    assert not page.locator("#controls").is_visible()
    assert not page.locator("[data-show]").is_visible()


@pytest.mark.slow
def test_ten_thousand_rows_are_shown_fifty_at_a_time(tmp_path: Path, opened: Opened) -> None:
    folder = make_run(tmp_path, count=10_000)
    page = opened(folder)
    assert told(page) == 10_000
    page.locator("input[value=wrong]").check()
    assert told(page) == len(rows_where(folder, KINDS["wrong"])) > 50
    assert page.locator("#rows-shown tr").count() == 50
    page.locator("#next").click()
    assert page.locator("#count").inner_text().startswith("Rows 51 to 100 of ")


@pytest.fixture
def side_by_side(tmp_path: Path) -> Path:
    """A page with three runs side by side, one of which has a hostile name."""
    names = ["first", "<img src=x onerror=alert(1)>" * 9, "third"]
    marks = [Mark("tuned", name, 0.5, [0.4, 0.6]) for name in names]
    comparison = Comparison(
        names, {"accuracy": ["0.500 (0.400 to 0.600)"] * 3}, {"lora_r": ["4", "8", "<b>"]},
        [Pair(names[0], name, 90, 3, 9, -0.1, 0.2) for name in names[1:]], "accuracy", intervals(marks),
    )  # fmt: skip
    write_html(comparison, tmp_path / "compared.html")
    return tmp_path / "compared.html"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_runs_side_by_side_are_a_page_too(side_by_side: Path, opened: Opened, width: int, scheme: str) -> None:
    page = opened(side_by_side, width=width, color_scheme=scheme)
    assert page.locator("#pairs .track").count() == 4
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = page.evaluate(CONTRAST)
    assert len(found) > 20
    assert [(round(ratio, 2), what) for ratio, what in found if ratio < 4.5] == []


@pytest.mark.slow
def test_a_label_with_two_spaces_is_found(tmp_path: Path, opened: Opened) -> None:
    folder = make_run(tmp_path, labels=("clear", "not  clear"))
    page = opened(folder)
    page.locator("#label").select_option(index=2)
    assert told(page) == len(rows_where(folder, lambda row: row["gold"] == "not  clear")) > 0
