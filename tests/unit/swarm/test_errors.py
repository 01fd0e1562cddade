"""How the name that was probably meant comes into an error line."""

from __future__ import annotations

from swarm.errors import did_you_mean, nearest


def test_a_name_is_found_whatever_its_case_and_returned_as_it_is_written() -> None:
    assert nearest("qwen3-06b", ["Llama-3", "Qwen3-0.6B"]) == "Qwen3-0.6B"
    assert nearest("gemma", ["Llama-3", "Qwen3-0.6B"]) is None


def test_where_nothing_is_near_the_choice_is_told() -> None:
    assert did_you_mean("solo", ["sole"], "; arms: sole") == "; did you mean 'sole'?"
    assert did_you_mean("x", ["sole"], "; arms: sole") == "; arms: sole"
