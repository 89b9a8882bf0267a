"""The page of `charlstm export RUN FILE.html`, in a headless Chromium."""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm.export.page import Facts, build
from charlstm.export.weights import pack, unpack
from charlstm.inference.sampling import decoding_of
from charlstm.nn import decoding, model
from charlstm.nn.config import ModelConfig
from charlstm.nn.hazard import LineAccount, LineHazard
from charlstm.nn.stepper import Stepper
from charlstm.nn.types import Array, Arrays
from charlstm.settings import SampleConfig
from charlstm.text.lines import opening
from charlstm.text.vocabulary import Vocabulary
from tests.browser import CHROMIUM, Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]

LATIN = "\n " + string.ascii_letters + string.digits[:7]  # 61
EUROPEAN = "".join(sorted({chr(c) for c in range(0x20, 0x7F)} | {"\n", "\t"} | {chr(c) for c in range(0xA1, 0xDC)}))
HANZI = "\n" + "".join(chr(0x4E00 + k) for k in range(5386))
HEBREW = "\n ,." + "".join(chr(c) for c in range(0x5B0, 0x5BD)) + "".join(chr(c) for c in range(0x5D0, 0x5EB))
ARABIC = " " + "".join(chr(c) for c in range(0x621, 0x653))  # letters and combining marks, no line end
EMOJI = "\n\u200d" + "".join(chr(0x1F600 + k) for k in range(70)) + "\U0001f3fb\U0001f3ff"
LINE_CHARS = tuple(max(0, 2 * k - 30) for k in range(65))
"""Quantiles of the lengths of lines: a quarter are empty, the longest has 98 characters."""
ODD = "\x00\t\n\r\x1b \"&'</>\\`{}\x7f\x85\xad\u2028\u2029\u202e\ufeff\ufffe" + "a\u0301script-!"


def ordered(characters: str) -> str:
    return "".join(sorted(set(characters)))


@dataclass(frozen=True)
class Run:
    """A model with random weights: large enough that what it reads matters, small enough that rounding does not."""

    characters: str
    hidden: int
    layers: int = 1
    embedding: int = 0
    bits: int = 16
    multiplicative: bool = False

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            len(self.characters),
            self.embedding,
            self.layers > 1,
            self.multiplicative,
            hidden=self.hidden,
            layers=self.layers,
        )

    @property
    def params(self) -> Arrays:
        rng = np.random.default_rng(self.hidden)
        params = model.init(self.config, rng)
        for name in params:
            if name.endswith(".W") or name == "out.P":
                params[name] *= 16
            if name.endswith(".U"):
                params[name] *= 2
            if name.endswith(".M"):
                params[name] += rng.normal(0, 0.5, params[name].shape).astype(np.float32)
            if name.endswith(".b"):
                params[name] += rng.normal(0, 0.3, params[name].shape).astype(np.float32)
        return params

    @property
    def line_chars(self) -> tuple[int, ...]:
        return LINE_CHARS if "\n" in self.characters else ()

    def page(self, **facts: Any) -> bytes:
        about = {"name": "a run", "sources": ["a text.txt"], "chars": 12345, "val_nats": 1.234} | facts
        return build(
            self.config, self.params, self.characters, Facts(**about), line_chars=self.line_chars, bits=self.bits
        )

    def stepper(self) -> Stepper:
        """The same weights in Python."""
        return Stepper(unpack(pack(self.params, self.bits)), self.config, 1)


RUNS = {
    "61": Run(ordered(LATIN), 64),
    "61, 1×256": Run(ordered(LATIN), 256),
    "61, multiplicative": Run(ordered(LATIN), 64, multiplicative=True),
    "61, int8": Run(ordered(LATIN), 96, bits=8),
    "156, two layers": Run(ordered(EUROPEAN), 96, 2),
    "156, three layers, int8": Run(ordered(EUROPEAN), 40, 3, bits=8),
    "156, embedding of odd width": Run(ordered(EUROPEAN), 50, 1, 33, multiplicative=True),
    "5,387": Run(ordered(HANZI), 128, 1, 96),
    "5,387, two layers": Run(ordered(HANZI), 64, 2, 96),
    "right to left": Run(ordered(HEBREW), 80),
    "right to left, no line end": Run(ordered(ARABIC), 48, 2),
    "emoji, joined": Run(ordered(EMOJI), 56),
    "odd characters, tiny": Run(ordered(ODD), 5),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Open a page of given bytes, by default at a fixed seed."""
    pages: list[Page] = []

    def open_page(data: bytes, fragment: str = "#seed=1", *, width: int = 1280, scheme: str = "light") -> Page:
        path = tmp_path / "a page.html"
        path.write_bytes(data)
        page = browser.page()
        pages.append(page)
        page.size(width, 900, mobile=width < 500)
        page.media(prefers_color_scheme=scheme)
        page.open(path, fragment)
        return page

    yield open_page
    for page in pages:
        page.close()


def finish(page: Page) -> None:
    page.wait("document.getElementById('text').getAttribute('aria-busy') === 'false'")


def text_of(page: Page, name: str) -> str:
    return str(page.run(f"document.getElementById({name!r}).textContent"))


def softmax(logits: Array) -> Array:
    p: Array = np.exp(logits.astype(np.float64) - logits.max())
    return p / p.sum()


def greedy(run: Run, prompt: str, length: int) -> str:
    step = run.stepper().step
    for character in prompt:
        logits = step(np.array([run.characters.index(character)]))
    made = ""
    while len(made) < length:
        made += run.characters[int(logits.argmax())]
        logits = step(np.array([run.characters.index(made[-1])]))
    return made


def random_numbers(seed: int) -> Iterator[float]:
    """The page's random numbers."""
    a, b, c = seed, 0, 0
    for counter in itertools.count(1):
        total = (a + b + counter) % 2**32
        a, b, c = b ^ (b >> 9), (c + (c << 3)) % 2**32, (((c << 21) | (c >> 11)) + total) % 2**32
        if counter > 15:
            yield total / 2**32


def sampled(run: Run, settings: SampleConfig, seed: int) -> tuple[str, Array, list[float]]:
    """What Python writes with the page's random numbers, the probabilities of its first character, and by how much another
    random number would have chosen another character, for each."""
    how = decoding_of(Vocabulary(run.characters), settings)
    account = None
    if run.line_chars and not how.exact:
        hazard = LineHazard(run.line_chars)
        account = LineAccount(hazard, 1, len(settings.prompt.rpartition("\n")[2]))
    step, made, first, margins = run.stepper().step, "", np.empty(0), []
    for character in settings.prompt:
        chosen = np.array([run.characters.index(character)])
        logits = step(chosen)
    for number in itertools.islice(random_numbers(seed), settings.length):
        if how.exact:
            p = softmax(logits[:, 0])
        else:
            scores, log_odds = decoding.log_scores(logits, how, None if account is None else account.boost(), chosen)
            p = softmax(scores[:, 0])
        first = first if made else p
        sums = np.cumsum(p)
        margins.append(float(np.abs(sums - number).min()))
        chosen = np.array([np.searchsorted(sums, number, side="right")])
        made += run.characters[chosen[0]]
        if account is not None:
            account.advance(log_odds, np.array([made[-1] == "\n"]))
        logits = step(chosen)
    return made, first, margins


@pytest.mark.parametrize("name", RUNS)
def test_the_page_chooses_characters_as_python_does(name: str, show: Callable[..., Page]) -> None:
    """Temperature, top-p, the ends of lines and sentences, and the account of each line, by the same random numbers."""
    run = RUNS[name]
    page = show(run.page(), "#length=1")
    rng = np.random.default_rng(4)
    same = 0
    for seed, (temperature, top_p) in enumerate([(0.5, 1.0), (0.8, 0.95), (1.0, 1.0), (1.0, 0.5), (1.7, 0.9)], 7):
        prompt = "".join(rng.choice(list(run.characters), 12))
        expected, p, margins = sampled(run, SampleConfig(temperature, top_p=top_p, prompt=prompt, length=500), seed)
        settings = {"temperature": temperature, "topP": top_p}
        found = page.run(f"charlstm.predict({json.dumps(prompt)}, {json.dumps(settings)}).then((p) => [...p])")
        assert np.abs(np.array(found) - p).max() < 1e-4
        settings |= {"prompt": prompt, "length": 500, "seed": seed}
        made = page.run(f"charlstm.generate({json.dumps(settings)})")
        alike = next((k for k, pair in enumerate(zip(made, expected, strict=True)) if len(set(pair)) > 1), 500)
        assert alike == 500 or margins[alike] < 1e-5, "more than rounding"
        same += alike
        if run.line_chars and (temperature, top_p) != (1, 1):
            lines = expected.split("\n")[1:-1]
            assert max(map(len, lines)) < 2 * LINE_CHARS[-1]
    assert same > 1500
    assert page.complaints() == []


@pytest.mark.parametrize("name", RUNS)
def test_the_page_writes_what_python_writes(name: str, show: Callable[..., Page]) -> None:
    run = RUNS[name]
    page = show(run.page(), "#length=1")
    rng = np.random.default_rng(3)
    prompts = ["".join(rng.choice(list(run.characters), n)) for n in (1, 2, 9, 40)]
    texts = set()
    for prompt in prompts:
        settings = json.dumps({"prompt": prompt, "temperature": 0, "length": 500})
        text = page.run(f"charlstm.generate({settings})")
        assert text == greedy(run, prompt, 500)
        texts |= set(text)

        step = run.stepper().step
        for character in prompt:
            logits = step(np.array([run.characters.index(character)]))
        found = page.run(f"charlstm.predict({json.dumps(prompt)}).then((p) => [...p])")
        assert np.abs(np.array(found) - softmax(logits[:, 0])).max() < 1e-4
    assert len(texts) > min(10, len(run.characters) // 6), "a test of nothing"
    assert page.run("charlstm.characters.join('')") == run.characters
    assert page.complaints() == []


def test_an_empty_prompt_begins_a_paragraph_where_empty_lines_separate_them(show: Callable[..., Page]) -> None:
    run = RUNS["61"]
    before = opening(Vocabulary(run.characters), run.line_chars)
    assert before == "\n\n"
    page = show(run.page())
    assert page.run("charlstm.generate({temperature: 0, length: 50})") == greedy(run, before, 50)
    shown = greedy(run, before, 600).lstrip("\n")
    page = show(run.page(), "#temperature=0&length=600")
    finish(page)
    assert text_of(page, "text") == shown


def test_characters_are_drawn_as_often_as_they_should_be(show: Callable[..., Page]) -> None:
    run = Run("abcdefgh", 6)
    page = show(run.page())
    step = run.stepper().step
    p = softmax(step(np.array([2]))[:, 0] / 0.7)
    ranked = np.argsort(-p)
    kept = ranked[: int(np.searchsorted(np.cumsum(p[ranked]), 0.8)) + 1]
    expected = np.zeros(8)
    expected[kept] = p[kept] / p[kept].sum()
    draws = 4000
    one = "(_, seed) => charlstm.generate({prompt: 'c', temperature: 0.7, topP: 0.8, length: 1, seed})"
    found = page.run(f"Promise.all(Array.from({{length: {draws}}}, {one})).then((all) => all.join(''))")
    counts = np.array([found.count(c) for c in run.characters]) / draws
    assert 1 < len(kept) < 8
    assert counts[expected == 0].sum() == 0
    assert np.abs(counts - expected).max() < 4 * 0.5 / draws**0.5


def test_the_same_seed_gives_the_same_text(show: Callable[..., Page]) -> None:
    page = show(RUNS["61"].page())
    one, two, other = page.run(
        "Promise.all([7, 7, 8].map((seed) => charlstm.generate({seed, length: 300, prompt: 'abc', topP: 0.9})))"
    )
    assert one == two != other
    assert len(one) == 300


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{prompt: 'aé'}", 'the model never saw "é"'),
        ("{temperature: -1}", "temperature -1 is out of range"),
        ("{topP: 0}", "topP 0 is out of range"),
        ("{length: 1.5}", "length 1.5 is out of range"),
        ("{seed: 'x'}", "seed x is out of range"),
    ],
)
def test_generate_refuses_what_it_can_not_do(settings: str, said: str, show: Callable[..., Page]) -> None:
    page = show(RUNS["61"].page())
    assert page.run(f"charlstm.generate({settings}).catch((error) => error.message)") == said


def test_a_link_holds_the_settings(show: Callable[..., Page]) -> None:
    data = RUNS["61"].page()
    page = show(data, "#prompt=Hello&temperature=0.5&topP=0.9&length=321&seed=42&colours=1")
    finish(page)
    first = text_of(page, "text")
    assert first.startswith("Hello")
    assert len(first) == len("Hello") + 321
    link = page.run("location.hash")
    assert page.run("document.getElementById('new-seed').checked") is False
    again = show(data, link)
    finish(again)
    assert text_of(again, "text") == first
    assert again.run("document.getElementById('colours').checked") is True
    assert show(data, "#temperature=99&length=-3&topP=x&nonsense=%FF").run("document.forms[0].length.value") is not None


def test_settings_out_of_range_in_a_link_are_ignored(show: Callable[..., Page]) -> None:
    page = show(RUNS["61"].page(), "#temperature=99&length=-3&topP=x&seed=1e99&%E0%A4%A")
    finish(page)
    values = page.run("['temperature', 'topP', 'length', 'seed'].map((id) => document.getElementById(id).value)")
    assert values == ["0.8", "1", "600", "1"]
    assert page.complaints() == []


def test_without_a_network_nothing_fails(show: Callable[..., Page], browser: Browser) -> None:
    page = show(RUNS["61"].page())
    finish(page)
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    page.run("document.getElementById('write').click()")
    finish(page)
    assert "600 characters" in text_of(page, "status")
    assert page.requests() == []
    assert page.complaints() == []


def test_the_policy_forbids_every_connection(show: Callable[..., Page]) -> None:
    page = show(RUNS["61"].page())
    code = """new Promise((resolve) => {
        const seen = [];
        document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
        fetch("https://example.org/").catch(() => {});
        new Image().src = "https://example.org/x.png";
        document.body.insertAdjacentHTML("beforeend", "<iframe src='https://example.org/'></iframe><b onclick='0' style='color:red'></b>");
        const script = document.createElement("script");
        script.textContent = "window.ran = 1";
        document.body.append(script);
        setTimeout(() => resolve([seen.sort(), "ran" in window]), 300);
    })"""
    seen, ran = page.run(code)
    assert {"connect-src", "img-src", "frame-src", "script-src-attr", "script-src-elem", "style-src-attr"} <= set(seen)
    assert ran is False
    assert page.requests() == []


HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    '"\' onload="window.hacked = 1" <!-- <script> ]]> &amp; {{weights}} \\g<0> \\1',
    "a\x00b\x1b]0;title\x07\x1b[31m\r\n\udcff\u202eevil\u2028\ufeff",
    "<img src=x onerror=window.hacked=1>" * 140,
    "x" * 5000,
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_change_nothing(name: str, show: Callable[..., Page]) -> None:
    run = RUNS["odd characters, tiny"]
    outline = "[...document.querySelectorAll('*')].map((e) => e.tagName + '#' + e.id).join(' ')"
    plain = show(run.page(), "#seed=3", width=390)
    finish(plain)
    page = show(run.page(name=name, sources=["/home/someone/" + (name or "x"), name]), "#seed=3", width=390)
    finish(page)
    assert page.run(outline) == plain.run(outline)
    assert text_of(page, "text") == text_of(plain, "text")
    assert page.run("'hacked' in window") is False
    assert page.run("document.documentElement.scrollWidth") == 390
    assert len(page.run("document.title")) < 100
    assert "someone" not in page.run("document.body.innerText")
    assert page.complaints() == []


def test_hostile_prompts_in_a_link_change_nothing(show: Callable[..., Page]) -> None:
    page = show(RUNS["odd characters, tiny"].page(), "#seed=3&prompt=%3C%2Fscript%3E%3Cimg%20src%3Dx%3E%00%1B")
    finish(page)
    assert page.run("document.querySelectorAll('#text *').length") == 1
    assert text_of(page, "text").startswith("</script><i"[:9])
    assert page.complaints() == []


def test_unknown_characters_of_a_prompt_are_left_out_and_named(show: Callable[..., Page]) -> None:
    page = show(RUNS["61"].page(), "#prompt=caf%C3%A9%21&seed=1")
    finish(page)
    assert text_of(page, "prompt-hint") == "Left out, because the model never saw it: é !"
    assert text_of(page, "text").startswith("caf")


def test_writing_can_be_stopped_and_started_by_keyboard(show: Callable[..., Page]) -> None:
    page = show(RUNS["61, 1×256"].page(), "#length=20000&seed=2")
    page.wait("document.getElementById('text').textContent.length > 50")
    assert text_of(page, "write") == "Stop"
    page.press("Escape", code=27)
    finish(page)
    assert text_of(page, "status").startswith("Stopped after")
    page.run("document.getElementById('prompt').focus()")
    page.press("Tab", code=9)
    assert page.run("document.activeElement.id") == "write"
    page.press("Enter", "\r", code=13)
    page.wait("document.getElementById('text').getAttribute('aria-busy') === 'true'")
    page.wait("document.getElementById('text').textContent.length > 50")
    page.press("Enter", "\r", code=13)
    finish(page)
    page.run("document.getElementById('prompt').focus()")
    page.press("Enter", "\r", modifiers=2, code=13)
    page.wait("document.getElementById('text').getAttribute('aria-busy') === 'true'")
    stops = []
    for _ in range(12):
        page.press("Tab", code=9)
        stops.append(page.run("document.activeElement.id || document.activeElement.tagName.toLowerCase()"))
    order = [
        "write",
        "summary",
        "temperature",
        "topP",
        "length",
        "seed",
        "new-seed",
        "copy-text",
        "copy-link",
        "colours",
    ]
    assert stops[: len(order)] == order


def test_the_text_and_the_link_can_be_copied(show: Callable[..., Page]) -> None:
    page = show(RUNS["61"].page(), "#prompt=abc&length=40&seed=1")
    finish(page)
    page.run("void (navigator.clipboard.writeText = (text) => ((window.copied = text), Promise.resolve()))")
    page.run("document.getElementById('copy-text').click()")
    page.wait("window.copied")
    assert page.run("window.copied") == text_of(page, "text")
    page.run("document.getElementById('copy-link').click()")
    page.wait("window.copied.startsWith('file:')")
    assert "prompt=abc&temperature=0.8&topP=1&length=40&seed=1" in page.run("window.copied")
    assert text_of(page, "status") == "The link is copied."


def test_surprising_characters_are_coloured(show: Callable[..., Page]) -> None:
    run = RUNS["right to left"]
    page = show(run.page(), "#temperature=2&seed=4&length=300")
    finish(page)
    sizes = "['one', 'two'].map((name) => CSS.highlights.get(name).size)"
    assert page.run(sizes) == [0, 0]
    page.run("document.getElementById('colours').click()")
    one, two = page.run(sizes)
    text = text_of(page, "text")
    step = run.stepper().step
    logits = step(np.array([run.characters.index("\n")]))
    made = page.run("charlstm.generate({temperature: 2, seed: 4, length: 300, topP: 1})")
    assert made.endswith(text)
    nats = []
    for character in made:
        nats.append(-np.log(softmax(logits[:, 0])[run.characters.index(character)]))
        logits = step(np.array([run.characters.index(character)]))
    seen = np.array(nats[len(made) - len(text) :])
    assert (one, two) == (int(((seen >= 3) & (seen < 5)).sum()), int((seen >= 5).sum()))
    assert one > 5
    ends = "[...CSS.highlights.get('one'), ...CSS.highlights.get('two')].map((r) => [r.startOffset, r.endOffset])"
    for start, end in page.run(ends):
        assert start < end
        assert start == 0 or not 0x5B0 <= ord(text[start]) <= 0x5BC, "a mark without its letter"
    page.run("document.getElementById('colours').click()")
    assert page.run(sizes) == [0, 0]


def test_right_to_left_text_runs_right_to_left(show: Callable[..., Page]) -> None:
    for name, direction in (("right to left", "rtl"), ("right to left, no line end", "rtl"), ("61", "ltr")):
        page = show(RUNS[name].page(), "#seed=9")
        finish(page)
        assert page.run("getComputedStyle(document.getElementById('text')).direction") == direction
        assert page.run("document.getElementById('text').childNodes.length") == 2, "letters join only within one piece"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violation(width: int, scheme: str, show: Callable[..., Page]) -> None:
    axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python: pip install charlstm[test]")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page = show(RUNS["61"].page(), "#seed=1&prompt=h%C3%A9&colours=1", width=width, scheme=scheme)
    finish(page)
    page.run("document.getElementById('settings').open = true")
    page.run(source + "\n0")
    found = page.run(
        "axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.html + n.failureSummary)]))"
    )
    assert found == []
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(245, 242, 234)" if scheme == "light" else "rgb(21, 22, 26)"
    )
