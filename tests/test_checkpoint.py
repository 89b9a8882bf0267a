"""The file: what goes in comes out to the bit, and what is damaged is named."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from charlstm.errors import CheckpointError, SaveError
from charlstm.settings import TrainConfig
from charlstm.storage import checkpoint
from charlstm.storage.schema import typed
from charlstm.text import corpus
from charlstm.training import loop, state
from charlstm.training.state import TrainState
from tests.experiments import hostile


def trained(text: Path, steps: int = 7, **settings: object) -> TrainState:
    found = corpus.read([str(text)])
    config = TrainConfig(**{"hidden": 6, "layers": 2, "batch": 3, "seq": 5} | settings)  # type: ignore[arg-type]
    run, _ = state.begin(found, config)
    run.schedule.end(steps, 3, 15, 10)
    for _ in loop.train(run, *found.split(0.1)):
        pass
    return run


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rebuild(path: Path, changed: dict[str, bytes | None], **how: int) -> None:
    """Write the file again with some members changed, added or left out."""
    kept = members(path) | changed
    with zipfile.ZipFile(path, "w", **how) as archive:  # type: ignore[arg-type]
        for name, data in kept.items():
            if data is not None:
                archive.writestr(name, data)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def saved(text: Path, folder: Path) -> Path:
    path = folder / "run.npz"
    checkpoint.save_run(path, trained(text))
    return path


@pytest.mark.parametrize("optimizer", ["muon", "adam", "rmsprop", "sgd"])
def test_a_run_comes_back_to_the_bit(text: Path, folder: Path, optimizer: str) -> None:
    run, path = trained(text, optimizer=optimizer, dropout=0.3), folder / "run.npz"
    checkpoint.save_run(path, run)
    again = checkpoint.load_run(path)
    for name in ("params", "slots", "snapshot", "averaged"):
        before, after = getattr(run, name), getattr(again, name)
        assert before.keys() == after.keys()
        for key in before:
            np.testing.assert_array_equal(before[key], after[key])
            assert before[key].dtype == after[key].dtype
    np.testing.assert_array_equal(run.recurrent_state.c, again.recurrent_state.c)
    plain = (
        "shape",
        "config",
        "vocabulary",
        "text",
        "cursor",
        "schedule",
        "step",
        "sums",
        "guard",
        "history",
        "best_step",
    )
    for name in plain:
        assert getattr(run, name) == getattr(again, name), name
    assert run.batch_rng.bit_generator.state == again.batch_rng.bit_generator.state
    assert run.dropout_rng.bit_generator.state == again.dropout_rng.bit_generator.state


def test_the_same_state_gives_the_same_bytes(text: Path, folder: Path) -> None:
    for name in ("a.npz", "b.npz"):
        checkpoint.save_run(folder / name, trained(text))
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_it_is_readable_with_numpy_alone(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as arrays:
        assert arrays["param/layer1.U"].shape == (24, 6)
        assert arrays["slot/m/out.b"].dtype == np.float32
        meta = json.loads(arrays["meta"].tobytes())
    assert meta["format"] == checkpoint.FORMAT
    assert meta["step"] == 7


def test_a_vocabulary_with_nul_and_beyond_the_basic_plane_survives(folder: Path) -> None:
    (folder / "odd.txt").write_text("\0a\U0001f600b\n" * 40, encoding="utf-8")
    path = folder / "odd.npz"
    checkpoint.save_run(path, trained(folder / "odd.txt", steps=2))
    assert checkpoint.load(path).char_model.vocabulary.characters == "\0\nab\U0001f600"


def test_a_model_to_sample_from_holds_no_more_than_that(text: Path, folder: Path) -> None:
    run, path = trained(text), folder / "run.best.npz"
    checkpoint.save_model(path, run)
    found = checkpoint.load(path)
    assert not found.resumable
    np.testing.assert_array_equal(found.char_model.params["out.W"], run.averaged["out.W"])
    assert not any(name.startswith(("slot/", "good/", "state/", "average/")) for name in members(path))
    with pytest.raises(CheckpointError, match="resume"):
        checkpoint.load_run(path)


def test_the_averaged_weights_of_a_run_are_sampled_from_and_old_runs_have_none(text: Path, folder: Path) -> None:
    run, path = trained(text), folder / "run.npz"
    checkpoint.save_run(path, run)
    np.testing.assert_array_equal(checkpoint.load(path).char_model.params["out.W"], run.averaged["out.W"])
    with np.load(path) as arrays:
        np.savez(folder / "old.npz", **{name: a for name, a in arrays.items() if not name.startswith("average/")})
    old = checkpoint.load_run(folder / "old.npz")
    for name, p in run.params.items():
        np.testing.assert_array_equal(old.params[name], p)
        np.testing.assert_array_equal(old.averaged[name], p)


@pytest.mark.parametrize("layers", [1, 2])
def test_two_layers_have_residual_connections_and_a_file_says_so(text: Path, folder: Path, layers: int) -> None:
    run, path = trained(text, layers=layers), folder / "run.npz"
    checkpoint.save_run(path, run)
    assert checkpoint.load_run(path).shape == run.shape
    with np.load(path) as arrays:
        stored = json.loads(arrays["meta"].tobytes())["model"]
    assert (run.shape.residual, stored.get("residual")) == ((False, None) if layers == 1 else (True, True))


def test_a_number_that_is_not_finite_is_never_written(text: Path, folder: Path) -> None:
    run, path = trained(text), folder / "run.npz"
    checkpoint.save_run(path, run)
    before = path.read_bytes()
    run.params["out.b"][0] = np.nan
    with pytest.raises(SaveError, match=r"param/out\.b .*finite"):
        checkpoint.save_run(path, run)
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_old_file_and_no_other(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, run = saved.read_bytes(), checkpoint.load_run(saved)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os if name == "fsync" else Path, name, fail)
            with pytest.raises(SaveError, match="No space left on device"):
                checkpoint.save_run(saved, run)
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir() if "tmp" in p.name] == []


def test_a_run_that_could_not_be_read_again_is_not_written(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = checkpoint.load_run(saved)
    monkeypatch.setattr(checkpoint, "MAX_META_BYTES", 900)
    with pytest.raises(SaveError, match="the paths of 1 texts: join them"):
        checkpoint.save_run(saved.with_name("other.npz"), run)
    assert not saved.with_name("other.npz").exists()


def test_a_file_system_that_cannot_flush_a_folder_is_saved_to(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, flush = checkpoint.load_run(saved), os.fsync

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    checkpoint.save_run(saved.with_name("other.npz"), run)
    assert saved.with_name("other.npz").read_bytes() == saved.read_bytes()


def test_a_file_gets_the_mode_of_any_new_file(saved: Path) -> None:
    plain = saved.with_name("plain")
    plain.write_bytes(b"")
    assert saved.stat().st_mode == plain.stat().st_mode


Damage = Callable[[Path], None]


def meta_with(**changes: object) -> Damage:
    def damage(path: Path) -> None:
        meta = json.loads(np.load(io.BytesIO(members(path)["meta.npy"])).tobytes())
        rebuild(path, {"meta.npy": npy(np.frombuffer(json.dumps(meta | changes).encode(), np.uint8))})

    return damage


def member(name: str, array: np.ndarray | None) -> Damage:
    return lambda path: rebuild(path, {name + ".npy": None if array is None else npy(array)})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"param/layer1.U") + 2000
    data[at] ^= 1
    path.write_bytes(data)


def twice(path: Path) -> None:
    kept = members(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("meta.npy", kept["meta.npy"])


def claim(path: Path) -> None:
    """A kilobyte that claims to be a hundred gigabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (25_000_000_000,)})
    rebuild(path, {"param/out.b.npy": header.getvalue() + b"\0" * 64})


def pickle(path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    rebuild(path, {"param/out.b.npy": file.getvalue()})


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no zip at all": (lambda path: path.write_bytes(b"text"), "not a checkpoint"),
    "an npy file": (lambda path: path.write_bytes(npy(np.zeros(3))), "not a checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "not a checkpoint"),
    "cut": (cut, "not a checkpoint"),
    "a flipped bit": (flip, "CRC"),
    "compressed": (lambda path: rebuild(path, {}, compression=zipfile.ZIP_DEFLATED), "compressed|larger than the file"),
    "two of a name": (twice, "same name"),
    "not an array": (lambda path: rebuild(path, {"../../etc/passwd": b"x"}), "not an array"),
    "a path as a name": (member("../../etc/passwd", np.zeros(3, np.float32)), "invalid name"),
    "an absolute path as a name": (member("/etc/passwd", np.zeros(3, np.float32)), "invalid name"),
    "a claim": (claim, "shape"),
    "a pickle": (pickle, "type"),
    "no meta": (member("meta", None), "meta"),
    "meta that is no JSON": (member("meta", np.frombuffer(b"{oops", np.uint8)), "Expecting"),
    "meta that is a list": (member("meta", np.frombuffer(b"[]", np.uint8)), "JSON object"),
    "another format": (meta_with(format=99), "format is 99"),
    "a setting out of range": (meta_with(config={"hidden": 6}), "config"),
    "steps that are words": (meta_with(step="seven"), "step is 'seven'"),
    "history that is a word": (meta_with(history="long"), "history"),
    "a vocabulary twice": (member("vocabulary", np.zeros(19, np.uint32)), "vocabulary"),
    "a vocabulary with a surrogate": (
        member("vocabulary", np.append(np.arange(25), 0xD800).astype(np.uint32)),
        "not an ordered set",
    ),
    "a model of other sizes": (
        meta_with(model={"vocabulary": 26, "hidden": 6, "layers": 10**9, "embedding": 0, "dropout": 0.0}),
        "model.layers is 1000000000, which is out of range",
    ),
    "a header that Python can't parse": (
        lambda path: rebuild(path, {"param/out.b.npy": b"\x93NUMPY\x01\x00\xe8\x03" + b"(" * 1000}),
        "header of param/out.b can't be read",
    ),
    "a parameter missing": (member("param/out.b", None), "param/out.b is missing"),
    "a parameter of another shape": (member("param/out.b", np.zeros(3, np.float32)), r"param/out.b is float32 \(3,\)"),
    "a parameter of another type": (member("param/layer1.b", np.zeros(24)), "param/layer1.b is float64"),
    "a parameter too many": (member("param/extra", np.zeros(3, np.float32)), "param/extra does not belong"),
    "a NaN": (member("param/layer1.b", np.full(24, np.nan, np.float32)), "param/layer1.b .*finite"),
    "a slot missing": (member("slot/m/out.b", None), "slot/m/out.b is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_every_kind_of_damage_is_one_sentence_that_names_the_file(saved: Path, name: str) -> None:
    damage, words = DAMAGES[name]
    damage(saved)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint.load_run(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said_so(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoint.load(folder / "none.npz")


def test_nothing_read_from_a_clock_is_in_it(text: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save_run(folder / "a.npz", trained(text))
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("time.localtime", lambda *_: (1999, 1, 1, 0, 0, 0, 0, 0, 0))
    checkpoint.save_run(folder / "b.npz", trained(text))
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_settings_that_the_command_line_would_refuse_are_refused_in_a_file(saved: Path) -> None:
    run = checkpoint.load_run(saved)
    object.__setattr__(run.config, "dropout", 7.0)
    checkpoint.save_run(saved, replace(run))
    with pytest.raises(CheckpointError, match=r"config\.dropout is 7"):
        checkpoint.load_run(saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_trick_that_is_known_is_refused_and_damage_at_random_is_never_taken_for_good(folder: Path) -> None:
    """The experiment itself, in small: see tests/experiments/hostile.py."""
    good = hostile.good(folder)
    data, expected, rng = good.read_bytes(), hostile.numbers(good), np.random.default_rng(2)
    bad = folder / "bad.npz"
    for name, trick in hostile.tricks(data).items():
        bad.write_bytes(trick)
        with pytest.raises(CheckpointError):
            checkpoint.load_run(bad)
        with pytest.raises(CheckpointError):
            raise AssertionError(f"{name} was loaded to sample from: {checkpoint.load(bad)}")
    for _ in range(150):
        bad.write_bytes(hostile.changed_as_it_lies(data, rng))
        with contextlib.suppress(CheckpointError):
            assert all(np.array_equal(a, b) for a, b in zip(hostile.numbers(bad), expected, strict=True))
        bad.write_bytes(hostile.rebuilt(data, rng))
        with contextlib.suppress(CheckpointError):
            hostile.numbers(bad)


def test_a_field_of_another_type_is_refused_even_where_python_would_take_it() -> None:
    for hint, value in ((int, True), (float, False), (int, 1.0), (float, float("inf")), (bool, 1), (str, None)):
        with pytest.raises(ValueError, match="its step is"):
            typed(hint, value, "step")
    assert typed(float, 1, "step") == 1.0
    assert typed(int | None, None, "step") is None
