"""Answers that were paid for and are not on record yet: kept until they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fakes.paid_model import Till

from swarm.backends.kept import KeptModel, KeptReplies
from swarm.backends.protocol import Structure, TextRequest, TextResult
from swarm.errors import SwarmError

ASKED = TextRequest("2 + 2 =", "be brief", 7, 9, 0.5, ("\n",), Structure(regex="[0-9]+"))
RESULT = TextResult("4 \U0001f600 \udcff", 11, 3, "stop", None, (), "hm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "open_tick.jsonl"


@pytest.fixture
def till() -> Till:
    return Till()


def test_what_was_kept_is_there_again_after_any_end(path: Path) -> None:
    kept = KeptReplies(path)
    assert not path.exists()
    kept.keep("k", RESULT)
    kept.keep("f", TextResult.failed("HTTP 400: no", 3, 1))
    again = KeptReplies(path)  # the first was never closed
    assert (again.get("k"), again.get("f"), again.get("x")) == (RESULT, TextResult.failed("HTTP 400: no", 3, 1), None)


def test_half_a_line_of_a_killed_run_costs_nothing_but_itself(path: Path) -> None:
    KeptReplies(path).keep("k", RESULT)
    with path.open("ab") as file:
        file.write(b'["h",{"text": "4')
    again = KeptReplies(path)
    again.keep("n", RESULT)
    last = KeptReplies(path)
    assert [last.get(key) for key in ("k", "h", "n")] == [RESULT, None, RESULT]


@pytest.mark.parametrize("line", ["", "null", "[]", '["k"]', '["k", {"text": 5}]', '[["k"], 5]', "[" * 9999, "\xff"])
def test_a_line_that_says_nothing_is_none(path: Path, line: str) -> None:
    path.write_bytes(line.encode("latin-1") + b"\n")
    kept = KeptReplies(path)
    kept.keep("n", RESULT)
    assert KeptReplies(path).get("n") == RESULT


def test_nothing_is_left_of_what_is_on_record(path: Path) -> None:
    kept = KeptReplies(path)
    kept.clear()
    kept.keep("k", RESULT)
    kept.clear()
    assert (kept.get("k"), path.exists()) == (None, False)
    kept.keep("n", RESULT)
    assert KeptReplies(path).get("n") == RESULT


def test_a_late_answer_of_a_run_that_has_stopped_is_dropped(path: Path) -> None:
    kept = KeptReplies(path)
    kept.close()
    kept.keep("k", RESULT)
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match=r"cannot write .*gone"):
        KeptReplies(tmp_path / "gone" / "open_tick.jsonl").keep("k", RESULT)


def test_nothing_that_is_kept_is_asked_again(path: Path, till: Till) -> None:
    requests = [dataclasses.replace(ASKED, seed=seed) for seed in range(5)]
    first = KeptModel(till.model(), KeptReplies(path), "agents").generate(requests[1:4])
    model = KeptModel(till.model(), KeptReplies(path), "agents")
    results = model.generate(requests)
    assert results[1:4] == first
    assert model.generate(requests) == results
    assert set(till.paid.values()) == {1}
    assert len(till.paid) == 5


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(TextRequest) if f.name not in ("memories", "inline")]
)
def test_every_part_of_a_request_decides_its_key(path: Path, till: Till, name: str) -> None:
    other = {
        "prompt": "3 + 3 =", "system": None, "seed": 8, "max_new_tokens": 8, "temperature": 0.6, "stop": (),
        "structure": Structure(choices=("4",)),
    }  # fmt: skip
    model = KeptModel(till.model(), KeptReplies(path), "agents")
    model.generate([ASKED, dataclasses.replace(ASKED, **{name: other[name]})])
    assert till.paid.total() == 2


def test_agents_and_coordinator_share_no_answers(path: Path, till: Till) -> None:
    kept = KeptReplies(path)
    for whose in ("agents", "coordinator"):
        KeptModel(till.model(), kept, whose).generate([ASKED])
    assert till.paid.total() == 2
    assert len(path.read_text().splitlines()) == 2
