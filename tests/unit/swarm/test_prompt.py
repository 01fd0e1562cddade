"""The layout of an agent's prompt, which play and training share."""

from swarm.prompt import STOP, agent_prompt


def test_observation_alone_is_one_line() -> None:
    assert agent_prompt("half 3 7 11 target 145") == "half 3 7 11 target 145\n"


def test_directive_is_the_last_line_read_before_the_action() -> None:
    text = agent_prompt("seen", "100+[45]", ["half 1 2 3 made 6"], [("1+2", "= 3"), ("x", "illegal: cannot read")])
    assert text == "seen\nheard half 1 2 3 made 6\n1+2 = 3\nx illegal: cannot read\n100+[45]\n"


def test_heard_reports_and_own_history_keep_their_order() -> None:
    lines = agent_prompt("seen", heard=["b", "a"], history=[("2", "late"), ("1", "later")]).splitlines()
    assert lines == ["seen", "heard b", "heard a", "2 late", "1 later"]


def test_every_prompt_ends_where_the_action_begins() -> None:
    for text in (agent_prompt(""), agent_prompt("seen", "do"), agent_prompt("seen", heard=["x"])):
        assert text.endswith(STOP)
        assert not text.endswith(STOP * 2)
