from hypothesis import given
from hypothesis import strategies as st

from swarm.config.experiment import BudgetConfig
from swarm.run.budget import Spent


def test_no_call_starts_once_the_budget_is_used() -> None:
    assert Spent(tokens=100).admit(BudgetConfig(tokens=100), [10, 10]) == 0


def test_last_call_may_overshoot_but_no_second_one() -> None:
    assert Spent(tokens=95).admit(BudgetConfig(tokens=100), [30, 30, 30]) == 1


def test_calls_in_flight_count_at_their_largest_cost() -> None:
    assert Spent().admit(BudgetConfig(tokens=100), [40, 40, 40, 40]) == 3


def test_calls_and_actions_are_never_exceeded() -> None:
    assert Spent(calls=3).admit(BudgetConfig(calls=5), [1] * 9) == 2
    assert Spent(actions=8).admit(BudgetConfig(actions=9), [1] * 9) == 1


def test_exhausted_names_the_limit() -> None:
    assert Spent(tokens=5).exhausted(BudgetConfig(tokens=5), ticks=0) == "tokens"
    assert Spent().exhausted(BudgetConfig(ticks=3), ticks=3) == "ticks"
    assert Spent(tokens=4).exhausted(BudgetConfig(tokens=5), ticks=0) is None


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1)), min_size=1, max_size=12))
def test_any_run_of_ticks_overshoots_by_less_than_one_call(limit: int, calls: list[tuple[int, float]]) -> None:
    budget = BudgetConfig(tokens=limit, ticks=None)
    spent = Spent()
    largest = max(cost for cost, _ in calls)
    while admitted := spent.admit(budget, [cost for cost, _ in calls]):
        for cost, share in calls[:admitted]:
            spent += Spent(max(1, int(cost * share)))
    assert limit <= spent.tokens < limit + largest
