"""The seeded faults of `tests/experiments/mutants.py` still apply, so that the figure it prints keeps its meaning."""

from __future__ import annotations

import itertools

from tests.conftest import ROOT
from tests.experiments.mutants import FAULTS


def test_every_seeded_fault_applies_and_is_still_python() -> None:
    labels = [fault.label for fault in FAULTS]
    assert len(set(labels)) == len(labels) >= 45
    problems = []
    for fault in FAULTS:
        try:
            compile(fault.apply(ROOT), fault.file, "exec")
        except (ValueError, SyntaxError) as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


def test_seeded_faults_name_test_files_that_exist() -> None:
    named = set(itertools.chain.from_iterable(fault.tests.split() for fault in FAULTS))
    assert not [name for name in named if not (ROOT / "tests" / f"test_{name}.py").is_file()]
