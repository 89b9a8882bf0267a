"""Mistakes that someone who knows char-rnn, nanoGPT or llm would make: each gets a sentence that helps, and none misleads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Result

Program = Callable[..., Result]
FABLES = "charlstm sample"
MISTAKES = {
    # char-rnn
    "train --data_dir data/tiny": "as in 'charlstm train CORPUS'",
    "train -data_dir data/tiny": "as in 'charlstm train CORPUS'",
    "train --rnn_size 512": "did you mean --hidden?",
    "train -rnn_size 512": "did you mean --hidden?",
    "train --num_layers 3": "did you mean --layers?",
    "train --seq_length 50": "did you mean --seq?",
    "train --batch_size 50": "did you mean --batch?",
    "train --max_epochs 50": "did you mean --epochs?",
    "train --learning_rate 2e-3": "did you mean --lr?",
    "train --grad_clip 5": "did you mean --clip?",
    "train --eval_val_every 100": "did you mean --eval-every?",
    "train --print_every 100": "did you mean --eval-every?",
    "train --checkpoint_dir cv": "did you mean --checkpoints?",
    "train --checkpoint_every 100": "did you mean --save-every?",
    "train --model lstm": "every model is an LSTM",
    "train --gpuid -1": "runs on the CPU",
    "train --opencl 1": "runs on the CPU",
    "train --init_from cv/x.npz": "did you mean --init-from?",
    "train --decay_rate 0.95": "see 'charlstm train --help'",
    "train --learning_rate_decay 0.97": "need no settings",
    "sample -temperature 0.5": "did you mean --temp?",
    "sample --temperature 0.5": "did you mean --temp?",
    "sample --temprature 0.5": "did you mean --temp?",
    "sample -primetext Hello": "did you mean --prompt?",
    "sample -length 2000": "did you mean --length?",
    "sample -temp 0.5": "did you mean --temp?",
    # nanoGPT
    "train --device=cpu": "runs on the CPU",
    "train --gpu": "runs on the CPU",
    "train --compile=False": "runs on the CPU",
    "train --block_size=64": "did you mean --seq?",
    "train --n_layer=4": "did you mean --layers?",
    "train --n_embd=128": "did you mean --hidden?",
    "train --max_iters=2000": "did you mean --steps?",
    "train --eval_interval=250": "did you mean --eval-every?",
    "train --out_dir=out-shakespeare": "did you mean --checkpoints?",
    "train --dataset=shakespeare": "as in 'charlstm train CORPUS'",
    "train --weight_decay=0.1": "need no settings",
    "train --resume": "did you mean --if-exists resume?",
    "train --overwrite": "did you mean --if-exists overwrite?",
    "train --force": "did you mean --if-exists overwrite?",
    "train --time 20": "did you mean --minutes?",
    "train --out x.npz": "--checkpoints under its --name",
    "train --model-path x": "see 'charlstm train --help'",
    "sample --start=Hello": "did you mean --prompt?",
    "sample --num_samples=3": "did you mean --count?",
    "sample --max_new_tokens=500": "did you mean --length?",
    # llm and others
    "sample -m fables": "as in 'charlstm sample RUN'",
    "sample --model fables": "as in 'charlstm sample RUN'",
    "sample --out x.txt": "did you mean --output?",
    "sample --max-length 30": "did you mean --length?",
    "sample --learning-rate 1": "'charlstm train' has --lr",
    "sample --repeat-penalty 1.2": "has no such method",
    "eval fables --min-p 0.1": "'charlstm sample' has --min-p",
    "sample --device cuda": "runs on the CPU",
    "sample --lenght 30": "did you mean --length?",
    "sample --verbose": "stderr names the run",
    "sample fables Hello": "'charlstm sample fables --prompt Hello'",
    "resume --hidden 64": "a resumed run keeps its settings",
    "resume --learning-rate 1": "a resumed run keeps its settings",
    "resume --force": "'charlstm train TEXT --if-exists overwrite'",
    "resume tweets tweets.txt": "give only the name of the run",
    "eval --model fables x.txt": "as in 'charlstm eval RUN TEXT'",
    "generate": "did you mean 'charlstm sample'?",
    "fit x.txt": "did you mean 'charlstm train'?",
    "chat": "did you mean 'charlstm sample -i'?",
    "train --minutes 5m": "--minutes '5m'",
    "train --minutes inf": "--minutes inf is not a finite number",
    "train --minutes -3": "--minutes -3 is out of range",
    "train --minutes": "'charlstm train --help'",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_plausible_mistake_gets_a_sentence_that_helps(charlstm: Program, folder: object, words: str) -> None:
    told = charlstm(*words.split())
    assert (told.status, told.out) == (2, "")
    assert MISTAKES[words] in told.sentence
    suggestions = told.sentence.count("did you mean") + told.sentence.count(" has --") + told.sentence.count("--help'")
    assert suggestions <= 1, "one thing to do"


def test_help_and_version_answer_to_the_words_of_other_programs(charlstm: Program) -> None:
    assert charlstm("help", "sample").out == charlstm("sample", "--help").out
    assert charlstm("help").out == charlstm("--help").out
    assert charlstm("-V").out == charlstm("--version").out
    assert charlstm("help", "smaple").status == 2
