"""The program from Python: what docs/api.md promises, and that the command line is built on nothing else."""

from __future__ import annotations

import inspect
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import charlstm as package
from charlstm import api, events
from charlstm.errors import CheckpointError, CorpusError, LockedError, PromptError, SaveError, UsageError
from charlstm.nn.stepper import Stepper
from charlstm.settings import RunOptions, SampleConfig, TrainConfig
from charlstm.storage import checkpoint
from tests.conftest import ROOT, VERSES, Result, slow

Program = Callable[..., Result]
TINY = {"hidden": 8, "batch": 4, "seq": 10, "preview_every_s": 0.0}
"""As `SMALL`."""


@pytest.fixture
def model(copy_run: Callable[..., None]) -> api.Model:
    copy_run(60)
    return package.load("verses")


# -- the page


@slow
def test_the_examples_of_the_page_run_as_they_stand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mytext.txt").write_text(VERSES * 20, encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
    told = capsys.readouterr().out
    assert "sample from checkpoints/mytext.best.npz" in told
    assert "`temperature` -1 is out of range" in told


def test_the_page_names_every_keyword() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for function in (api.load, api.describe, api.train, api.resume, api.Model.sample, api.Model.evaluate):
        for name in inspect.signature(function).parameters:
            assert name == "self" or re.search(rf"\b{name}\b", page), f"{function.__qualname__}: {name}"
    for name in package.__all__:
        assert name in page


def test_sample_takes_every_setting_and_no_other(model: api.Model) -> None:
    assert len("".join(model.sample(seed=1, **vars(SampleConfig(length=5))))) == 5
    with pytest.raises(TypeError, match="temprature"):
        model.sample(temprature=1)


def test_train_takes_every_setting_and_no_other(text: Path) -> None:
    settings = {**vars(TrainConfig()), "steps": 1, **vars(RunOptions())} | TINY
    del settings["shards"]  # follows from `threads`
    *_, finished = api.train(text, **settings)
    assert finished.step == 1
    with pytest.raises(UsageError, match="did you mean hidden"):
        api.train(text, hiden=3)
    with pytest.raises(UsageError, match="`hidden` can't be changed"):
        api.resume(hidden=3)


# -- importing it


def test_importing_the_package_does_not_import_numpy() -> None:
    code = (
        "import sys, charlstm; assert 'numpy' not in sys.modules and 'typer' not in sys.modules;"
        "assert set(dir(charlstm)) >= {'load', 'train', 'resume'};"
        "charlstm.load; assert 'numpy' in sys.modules and 'typer' not in sys.modules and 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # noqa: B018


# -- a model


def test_a_model_tells_what_it_is(model: api.Model, folder: Path) -> None:
    assert model.name == "verses"
    assert model.path == Path("checkpoints/verses.best.npz")
    assert set(model.vocabulary) == set(VERSES)
    assert (model.config.hidden, model.settings.batch) == (8, 4)
    assert model.text.sources == (str(folder / "verses.txt"),)
    assert model.history[-1].val_nats is not None
    assert "verses" in repr(model)
    assert len(repr(model)) < 200
    assert package.load(folder / "checkpoints/verses.npz").name == "verses"


def test_what_cannot_be_loaded_raises_what_the_page_says(folder: Path) -> None:
    (folder / "fake.npz").write_bytes(b"PK??")
    with pytest.raises(UsageError):
        package.load("nobody")
    with pytest.raises(CheckpointError):
        package.load(folder / "fake.npz")
    assert package.load().name == "fables"


def test_a_sample_is_the_text_that_the_command_line_writes(model: api.Model, charlstm: Program) -> None:
    text = "".join(model.sample(length=80, temperature=0.7, top_k=9, top_p=0.9, prompt="the ", seed=4))
    options = ("--length", 80, "--temp", 0.7, "--top-k", 9, "--top-p", 0.9, "--prompt", "the ", "--seed", 4)
    assert "the " + text == charlstm("sample", *options).out
    assert len(text) == 80


def test_samples_side_by_side_are_those_of_their_seeds(model: api.Model) -> None:
    made = list(model.sample_many(range(3, 23), SampleConfig(length=50)))
    assert ["".join(pieces) for pieces in zip(*made, strict=True)] == [
        "".join(model.sample(length=50, seed=seed)) for seed in range(3, 23)
    ]


def test_a_sample_is_refused_before_it_is_begun(model: api.Model) -> None:
    for settings in ({"temperature": -1}, {"top_p": 0}, {"seed": -1}, {"length": -1}, {"unknown": "perhaps"}):
        with pytest.raises(UsageError):
            model.sample(**settings)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="U\\+00EF"):
        model.sample(prompt="naïve")
    assert len("".join(model.sample(prompt="naïve", unknown="skip", length=3))) == 3


def step_by_step(model: api.Model, start: str, text: str) -> float:
    """What every character of the text surprised the model, one after the other, from a zero state."""
    writer = model.file.char_model
    step = Stepper(writer.params, writer.config, 1).step
    total, logits = 0.0, np.zeros(len(writer.vocabulary))
    for k, i in enumerate(writer.vocabulary.encode(start + text)):
        if k >= len(start):
            total += math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[i]
        logits = step(np.array([i]))[:, 0].astype(float)
    return total / len(text)


@pytest.mark.parametrize("length", [1, 30, 3000])
@pytest.mark.parametrize("prompt", ["", "the cat"])
def test_a_sample_is_judged_as_it_was_written_without_its_prompt(model: api.Model, prompt: str, length: int) -> None:
    text = "".join(model.sample(prompt=prompt, length=length, seed=1))
    assert model.evaluate(text, prompt=prompt) == pytest.approx(step_by_step(model, prompt or "\n", text), rel=1e-4)


def test_evaluate_is_what_eval_tells(model: api.Model, charlstm: Program, folder: Path) -> None:
    text = VERSES[::-1] * 10
    (folder / "new.txt").write_text(text, encoding="utf-8")
    for cold in (0, 7):
        told = json.loads(charlstm("eval", "verses", "new.txt", "--json", "--context", cold).out)
        assert model.evaluate(text, context=cold) == pytest.approx(told["nats_per_char"], rel=1e-12)
        assert model.evaluate(api.read_text("new.txt"), context=cold) == pytest.approx(told["nats_per_char"], rel=1e-12)
    with pytest.raises(UsageError, match="never saw"):
        model.evaluate("naïve")
    assert model.score("naïve", unknown="skip").left_out == 1
    for nothing in ("", "t"):
        with pytest.raises(UsageError, match="too short"):
            model.evaluate(nothing)
    with pytest.raises(UsageError, match="too short"):
        model.evaluate("", prompt="the")


# -- training


def test_training_is_an_iterator_of_events(text: Path) -> None:
    told = list(package.train(text, steps=12, **TINY))
    assert (told[0].name, told[-1].name) == ("started", "finished")
    assert [event.step for event in told if event.name == "progress"] == list(range(1, 13))
    again = list(package.resume("verses", steps=20, preview_every_s=0))
    assert again[-1].step == 20


def test_a_run_that_was_left_is_saved_and_resumed_as_if_it_had_never_stopped(text: Path, folder: Path) -> None:
    list(package.train(text, steps=40, checkpoints="whole", **TINY))
    for event in package.train(str(text), steps=40, **TINY):
        if event.step == 17:
            break
    assert checkpoint.load_run(folder / "checkpoints/verses.npz").step == 17
    going = package.resume("verses", preview_every_s=0)
    for event in going:
        if isinstance(event, events.Evaluated):
            break
    going.close()
    best = checkpoint.load_run(folder / "checkpoints/verses.npz").best_step
    assert best == event.step == checkpoint.load(folder / "checkpoints/verses.best.npz").step
    list(package.resume("verses", preview_every_s=0))
    for name in ("verses.npz", "verses.best.npz"):
        assert (folder / "checkpoints" / name).read_bytes() == (folder / "whole" / name).read_bytes()


@pytest.mark.parametrize("events_taken", [0, 1, 5])
def test_closing_gives_the_lock_back(text: Path, events_taken: int) -> None:
    going = package.train(text, steps=40, if_exists="overwrite", **TINY)
    for _ in range(events_taken):
        next(going)
    with pytest.raises(LockedError):
        package.train(text, steps=40, if_exists="overwrite", **TINY)
    going.close()
    list(package.train(text, steps=3, if_exists="overwrite", **TINY))


def test_a_run_that_could_not_be_saved_when_it_was_left_says_so(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = package.train(text, steps=40, **TINY)
    while next(going).step < 3:
        pass

    def fail(*_: object) -> None:
        raise SaveError("the disk is full")

    monkeypatch.setattr(checkpoint, "save_run", fail)
    with pytest.raises(SaveError, match=r"step 3 .* the disk is full"):
        going.close()


def test_stop_ends_it_gently(text: Path) -> None:
    stop = package.Stop()
    told = []
    for event in package.train(text, steps=40, stop=stop, **TINY):
        told.append(event)
        if event.step == 5:
            stop.reason = "enough"
    assert (told[-1].name, told[-1].step) == ("finished", 5)
    assert told[-1].reason == "enough"


def test_training_is_refused_at_once(text: Path, folder: Path) -> None:
    for settings, error in (
        ({"hidden": 0}, UsageError),
        ({"minutes": 1, "steps": 1}, UsageError),
        ({"threads": -1}, UsageError),
        ({"encoding": "klingon"}, CorpusError),
        ({"init_from": "nobody"}, UsageError),
    ):
        with pytest.raises(error):
            package.train(text, **settings)
    with pytest.raises(CorpusError):
        package.train("nowhere.txt")
    with pytest.raises(UsageError):
        package.resume("nobody")
    assert not (folder / "checkpoints").exists()
