"""What records say of a training: curves, rate of convergence, alarms."""

from __future__ import annotations

import math
from typing import Any

import pytest

from swarm.train.monitor import add_record, alarms, convergence, curves, longest_silence_s


def lines(last: int = 1000, every: int = 50, **metrics: Any) -> list[dict[str, Any]]:
    """Lines of metrics of a training in which nothing is wrong, ten seconds apart, but for these metrics."""
    steps = range(every, last + 1, every)
    return [{"step": step, "loss": 2.0, "seconds": 10.0 * n, **metrics} for n, step in enumerate(steps, 1)]


def names(records: list[dict[str, Any]], silent_s: float = 0.0) -> list[str]:
    return [alarm.name for alarm in alarms(records, silent_s)]


def test_nothing_is_wrong_with_a_training_that_goes_well() -> None:
    well = {"ltm_hit_rate": 0.1, "reads_slots": 0.2, "end_rate": 0.9, "consolidated": 1, "rejected": 1, "bits_x": 1.0}
    assert names(lines(**well)) == []
    assert names([]) == []


@pytest.mark.parametrize("name", ["reads_slots", "ltm_hit_rate"])
def test_a_memory_that_does_not_fire_for_500_steps_is_an_alarm(name: str) -> None:
    assert names(lines(**{name: 0})) == [name]
    assert names(lines(**{name: 0, "LTM_enabled": False})) == []
    assert names(lines(last=500, **{name: 0})) == []  # its first line is of step 50
    fired = [*lines(last=500, **{name: 0.1}), *lines()[10:]]
    for record in fired[10:]:
        record[name] = 0
    assert names(fired[:-1]) == []
    assert "is 0 for 500 steps" in alarms([*fired, {"step": 1050, name: 0}])[0].text


def test_a_kind_of_reads_that_began_late_has_500_steps_too() -> None:
    records = lines(last=2000)
    for record in records[30:]:
        record["reads_far"] = 0
    assert records[30]["step"] == 1550
    assert names(records) == []
    assert names([*records, {"step": 2050, "reads_far": 0}]) == ["reads_far"]


def test_an_end_token_that_is_not_written_is_an_alarm() -> None:
    assert names(lines(end_rate=0.89)) == ["end_rate"]
    assert names([*lines(last=100, end_rate=0.5), *lines()[2:]]) == ["end_rate"]  # measured seldom
    assert names([*lines(last=100, end_rate=0.5), *lines(end_rate=0.95)[2:]]) == []


@pytest.mark.parametrize(("consolidated", "rejected", "which"), [(1, 0, "accepted"), (0, 1, "rejected")])
def test_consolidations_that_all_end_alike_are_an_alarm(consolidated: int, rejected: int, which: str) -> None:
    records = lines(last=500, consolidated=consolidated, rejected=rejected)
    assert names(records[:9]) == []
    (alarm,) = alarms(records)
    assert alarm.text.startswith(f"all 10 consolidations were {which}")
    assert names([*records, {"step": 550, "consolidated": 1, "rejected": 1}]) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_alarm_until_it_is_again(value: float) -> None:
    bad = [*lines(), {"step": 1050, "loss": 2.0, "loss_far": value}]
    assert names(bad) == ["loss_far"]
    assert names([*bad, {"step": 1100, "loss": 2.0, "loss_far": 1.0}]) == []


def test_a_record_is_overdue_after_a_multiple_of_the_usual_distance() -> None:
    slow = [{**record, "seconds": 6 * record["seconds"]} for record in lines()]
    slow[-1]["seconds"] += 5000  # one long pause, as for scoring, is not the usual distance
    assert longest_silence_s(slow) == 300
    assert names(slow, silent_s=299) == []
    assert names(slow, silent_s=301) == ["silence"]
    assert longest_silence_s(lines()) == 60  # never after seconds
    assert longest_silence_s([{"step": 1}]) is None


def test_convergence_is_the_slope_of_the_last_quarter() -> None:
    points = [(step, 9.0 - step if step < 750 else 1.0 - step / 500) for step in range(50, 1001, 50)]
    assert convergence(points) == pytest.approx(-2.0)
    assert convergence([*points, (1001, math.nan)]) == pytest.approx(-2.0)
    assert convergence(points[:2]) is None


def test_curves_are_found_by_name_and_by_its_beginning() -> None:
    records = [
        {"step": 1, "loss": 1.0, "loss_far": 2, "losses": 3, "LTM_enabled": True},
        {"step": 2, "loss_far": 1.5, "bits_x": "?"},
    ]
    assert curves(records, "loss", "loss_", "bits_", "LTM_enabled") == {
        "loss": [(1, 1.0)],
        "loss_far": [(1, 2), (2, 1.5)],
    }


def test_steps_that_are_taken_again_replace_those_of_before() -> None:
    records: list[dict[str, Any]] = []
    for step, loss in ((1, 5), (2, 4), (3, 3), (2, 8)):
        add_record(records, {"step": step, "loss": loss})
    assert records == [{"step": 1, "loss": 5}, {"step": 2, "loss": 8}]
