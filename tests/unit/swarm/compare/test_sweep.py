"""Sweeps: one comparison per value, a summary of all, and a true sentence about where the lead changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.scripted_run import experiment

from swarm.compare import sweep as module
from swarm.compare.analysis import ArmRow, Comparison, Difference
from swarm.compare.sweep import crossover, run_sweep
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.stats import Interval

PNG = b"\x89PNG\r\n\x1a\n"
AHEAD, LEVEL_AHEAD = Interval(0.3, 0.1, 0.5), Interval(0.1, -0.1, 0.3)
BEHIND, LEVEL_BEHIND = Interval(-0.3, -0.5, -0.1), Interval(-0.1, -0.3, 0.1)


def differences(*solo: Interval) -> dict[str, dict[str, Interval]]:
    return {str(2**i): {"solo": interval, "random": AHEAD} for i, interval in enumerate(solo)}


@pytest.mark.parametrize(
    ("solo", "sentence"),
    [
        (
            (AHEAD, LEVEL_AHEAD, BEHIND, BEHIND),
            "crossover: the solo is ahead from 4 on, significantly from 4; the swarm is at 1",
        ),
        (
            (AHEAD, AHEAD, LEVEL_BEHIND, BEHIND),
            "crossover: the solo is ahead from 4 on, significantly from 8; the swarm is at 1, 2",
        ),
        ((LEVEL_AHEAD, LEVEL_BEHIND), "crossover: the solo is ahead from 2 on, nowhere significantly; "),
        ((LEVEL_AHEAD, LEVEL_BEHIND), "; the swarm is at no value"),
        ((BEHIND, BEHIND), "crossover: the solo is ahead from 1 on, significantly from 1; the swarm is at no value"),
        (
            (AHEAD, LEVEL_AHEAD, AHEAD),
            "crossover: the solo does not overtake the swarm at any value (swarm ahead at 1, 4)",
        ),
        ((LEVEL_AHEAD,), "crossover: the solo does not overtake the swarm at any value (swarm ahead at -)"),
        ((Interval(0.0, 0.0, 0.0), AHEAD), "does not overtake the swarm at any value (swarm ahead at 2)"),
        (
            (BEHIND, AHEAD, LEVEL_BEHIND),
            "crossover: at no value does the solo get ahead and stay there; it is ahead at 1, 4 (significantly at 1), "
            "the swarm significantly at 2",
        ),
        ((LEVEL_BEHIND, LEVEL_AHEAD), "it is ahead at 1 (significantly at no value), the swarm significantly at no "),
    ],
)
def test_the_sentence_says_where_the_solo_overtakes_and_how_surely(solo: tuple[Interval, ...], sentence: str) -> None:
    assert sentence in crossover(differences(*solo))


def test_without_the_solo_nothing_is_said_of_a_crossover() -> None:
    found = differences(AHEAD, BEHIND)
    del found["2"]["solo"]
    assert crossover(found) == "crossover: not measured, for the arm solo was not run"


# ---- the run


def swept(key: str = "agents.count", values: Sequence[Any] = (2, 4), **changes: Any) -> ExperimentConfig:
    compare = {"seeds": [1], "episodes": 3, "sweep": {key: list(values)}}
    return experiment(compare=compare, **changes)


def comparison(*rows: tuple[str, float, Interval | None]) -> Comparison:
    found = []
    for arm, rate, difference in rows:
        differences = [] if difference is None else [Difference(1.0, difference, "beats")]
        rates = {1.0: Interval(rate, rate - 0.1, rate + 0.1), 0.5: Interval(0.0, 0.0, 0.0)}
        found.append(ArmRow(arm, arm, 9, rates, differences, 1.0, None, None, None, 1.0, None, None, None))
    found.append(ArmRow("random", "random", 0, {}, [], 0.0, None, None, None, 0.0, None, None, None))  # nothing ended
    return Comparison("demo", "echo-v0", "swarm", 100, [1], 3, 100, found, [], [], {}, None)


class Compared:
    """Stands for `compare_arms`; knows what it was asked."""

    def __init__(self, results: Sequence[Comparison]) -> None:
        self.results = list(results)
        self.asked: list[tuple[ExperimentConfig, Path, tuple[str, ...], tuple[int, ...]]] = []

    def __call__(
        self, config: ExperimentConfig, source: Path, out: Path, arms: Sequence[str], seeds: Sequence[int], echo: Any
    ) -> Comparison:
        out.mkdir(parents=True, exist_ok=True)
        self.asked.append((config, out, tuple(arms), tuple(seeds)))
        return self.results[len(self.asked) - 1]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    found = Compared(
        [
            comparison(("swarm", 0.8, None), ("solo", 0.5, AHEAD)),
            comparison(("swarm", 0.4, None), ("solo", 0.7, BEHIND)),
        ]
    )
    monkeypatch.setattr(module, "compare_arms", found)
    return found


def test_every_value_is_compared_in_a_folder_of_its_own(tmp_path: Path, compared: Compared) -> None:
    lines: list[str] = []
    config = swept("world.options.half", [2, 3])
    run_sweep(config, Path("x.yaml"), tmp_path / "out", ("swarm", "solo"), (5,), echo=lines.append)
    assert [asked[0].world.options for asked in compared.asked] == [{"half": 2}, {"half": 3}]
    assert [asked[1] for asked in compared.asked] == [tmp_path / "out" / "half-2", tmp_path / "out" / "half-3"]
    assert {asked[2:] for asked in compared.asked} == {(("swarm", "solo"), (5,))}
    for asked, *_ in compared.asked:
        assert asked.compare is not None
        assert asked.compare.sweep == {}  # a comparison of one value is no sweep
        assert asked.compare.episodes == 3
    assert "== world.options.half = 3" in lines


def test_the_summary_holds_rates_differences_and_the_crossover(tmp_path: Path, compared: Compared) -> None:
    lines: list[str] = []
    out = tmp_path / "out"
    run_sweep(swept(), Path("x.yaml"), out, echo=lines.append)
    found = json.loads((out / "sweep.json").read_text())
    assert found["key"] == "agents.count"
    assert found["rates"]["4"]["solo"] == {"estimate": 0.7, "low": pytest.approx(0.6), "high": pytest.approx(0.8)}
    assert found["swarm_minus"] == {"2": {"solo": AHEAD._asdict()}, "4": {"solo": BEHIND._asdict()}}
    assert found["crossover"] == lines[-1]
    assert "from 4 on, significantly from 4; the swarm is at 2" in lines[-1]
    assert (out / "sweep.png").read_bytes().startswith(PNG)
    table = lines[lines.index("agents.count = 4") :]
    assert table[1].split() == ["swarm", ".400", "[.300,", ".500]"]
    assert table[2].split()[4:] == ["swarm", "minus", "it", "-.300", "[-.500,", "-.100]"]


def test_an_experiment_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match=r"has no compare\.sweep"):
        run_sweep(experiment(), Path("x.yaml"), tmp_path, echo=lambda line: None)


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("agnets.count", [1, 2], "unknown key 'agnets'; did you mean 'agents'?"),
        ("agents.cuont", [1, 2], "unknown key 'cuont' in 'agents'; did you mean 'count'?"),
        ("agents.count.half", [1, 2], "'agents.count' is a single value and holds no keys"),
        ("seed.0", [1, 2], "'seed' is a single value and holds no keys"),
        ("compare.seeds.0", [1, 2], "'compare.seeds' is a list; give it whole, as in compare.seeds=[1,2]"),
        ("world.options.halv", [2, 3], "unknown key 'halv' in 'world.options'; did you mean 'half'?"),
        ("agents.count", [2, 0], "agents.count is 0; allowed: a whole number >= 1"),
        ("agents.memory", ["stm", "ltm"], 'agents.memory is "stm"; allowed: a list'),
    ],
)
def test_a_key_or_value_that_cannot_be_is_one_line_before_anything_runs(
    tmp_path: Path, compared: Compared, key: str, values: list[Any], words: str
) -> None:
    with pytest.raises(SwarmError) as error:
        run_sweep(swept(key, values), Path("x.yaml"), tmp_path, echo=lambda line: None)
    assert str(error.value).startswith(f"compare.sweep: {words}")
    assert len(str(error.value).splitlines()) == 1
    assert compared.asked == []
