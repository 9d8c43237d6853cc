"""The sentences for what real clusters told: recorded events, each with the version of its cluster."""

import json
import re
from pathlib import Path

import pytest

from proxy.workspaces.kubernetes.diagnosis import judge
from tests.recorded import EXPECTED, files, load


@pytest.mark.parametrize("file", files(), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_what_a_cluster_told_becomes_the_sentence_for_it(file: Path) -> None:
    prognosis, sentence = EXPECTED[file.stem]
    diagnosis = judge(load(file))
    assert re.search(sentence, diagnosis.sentence), diagnosis
    assert diagnosis.prognosis is prognosis, diagnosis


def test_every_situation_is_recorded_with_the_version_of_its_cluster() -> None:
    assert {file.stem for file in files()} == set(EXPECTED)
    assert all(json.loads(file.read_text())["server"] == file.parent.name for file in files())
