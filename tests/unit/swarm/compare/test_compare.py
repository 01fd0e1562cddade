"""A comparison is fair, resumable, says what it found, and says where it is not to be trusted."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from fakes.scripted_run import Script, ScriptedPool, chance, experiment, standing_in, write_run

from swarm.compare.analysis import Comparison, analyse
from swarm.compare.arms import ARMS, arms_of, equal_terms
from swarm.compare.report import table_text
from swarm.compare.runs import compare_arms
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.outcomes import RunOutcomes, read_run

pytestmark = pytest.mark.thorough

RATES = {
    "solo": 0.3,
    "solo_split": 0.85,
    "time_slice": 0.9,
    "independent": 0.3,
    "no_messages": 0.0,
    "rules": 0.9,
    "swarm": 0.9,
    "shuffled": 0.4,
    "random": 0.5,
}


def arm_of(config: ExperimentConfig) -> str:
    return config.name.removeprefix("demo-")


class Played:
    """Plays each arm by a script, with the real runtime, and remembers what it was asked for."""

    def __init__(self, scripts: Callable[[ExperimentConfig], Script]) -> None:
        self.scripts = scripts
        self.started: list[str] = []
        self.resumed: list[str] = []
        self.die_at: str | None = None

    def start_run(
        self, config: ExperimentConfig, source: Path, out: Path, announce: Callable[[Path], None]
    ) -> SimpleNamespace:
        (self.resumed if (out / "journal.jsonl").exists() else self.started).append(out.name)
        script = self.scripts(config)
        write_run(out, config, script._replace(stop_after=2) if out.name == self.die_at else script)
        announce(out)
        if out.name == self.die_at:
            raise KeyboardInterrupt
        return SimpleNamespace(run_dir=out, reason="finished", exit_code=0)


def honest(config: ExperimentConfig) -> Script:
    return Script(chance(RATES[arm_of(config)]))


@pytest.fixture
def drawing_runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    played = Played(honest)
    with standing_in(ScriptedPool()):
        monkeypatch.setattr("swarm.run.runner.start_run", played.start_run)
        yield played


@pytest.fixture
def runner(drawing_runner: Played, monkeypatch: pytest.MonkeyPatch) -> Played:
    for step in ("plot_coverage", "plot_rates", "to_png"):
        monkeypatch.setattr(f"swarm.compare.report.{step}", lambda *_: b"not drawn")
    return drawing_runner


def compare_in(
    folder: Path,
    arms: tuple[str, ...],
    seeds: tuple[int, ...] = (1,),
    config: ExperimentConfig | None = None,
    echo: Callable[[str], None] = lambda _: None,
) -> Path:
    compare_arms(config or experiment(), folder.parent / "demo.yaml", folder, arms, seeds, echo)
    return folder


def compared(tmp_path: Path, arms: dict[str, Script], episodes: int = 10, **setting: object) -> Comparison:
    seeds = (1, 2)
    runs: dict[str, list[RunOutcomes]] = {}
    for arm, script in arms.items():
        for seed in seeds:
            run_dir = tmp_path / f"{arm}-s{seed}"
            write_run(run_dir, equal_terms(experiment(), arm, seed, episodes), script)
            runs.setdefault(arm, []).append(read_run(run_dir))
    options = {"parameters": lambda model: None, **setting}
    return analyse("demo", runs, budget=6000, seeds=seeds, episodes=episodes, resamples=400, skipped={}, **options)  # type: ignore[arg-type]


# --- rivals ---

RULES = {"coordinator.kind": "rules", "coordinator.engine": None}


def with_rivals(**rivals: dict[str, object]) -> ExperimentConfig:
    return experiment(compare={"seeds": [1], "episodes": 4, "rivals": rivals})


def test_a_rival_differs_in_its_settings_and_nothing_else() -> None:
    base = with_rivals(by_hand={**RULES, "world.options.half": 2})
    rival, swarm = equal_terms(base, "by_hand", 5, 20), equal_terms(base, "swarm", 5, 20)
    assert (rival.coordinator.kind, rival.coordinator.engine, rival.world.options) == ("rules", None, {"half": 2})
    assert rival.name == "demo-by_hand"
    same = {"coordinator": swarm.coordinator, "world": swarm.world, "name": swarm.name}
    assert rival.model_copy(update=same) == swarm
    assert list(arms_of(base)) == [*ARMS, "by_hand"]
    assert arms_of(base)["by_hand"].title == "by hand"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("solo", RULES, "no new name"),
        ("a b", RULES, "no new name"),
        ("empty", {}, "changes nothing"),
        ("typo", {"coordinator.knd": "rules"}, "typo: unknown key 'knd' in 'coordinator'; did you mean 'kind'?"),
        ("deep", {"coordinator.kind.x": "rules"}, "'coordinator.kind' is a single value and holds no keys"),
        ("wrong", {"agents.count": 0}, "wrong: agents.count is 0; allowed: a whole number >= 1"),
        ("clash", {**RULES, "coordinator.menu": 3}, "clash: coordinator: `menu` is for models"),
        ("options", {"world.options.halv": 2}, "options: unknown key 'halv' in 'world.options'; did you mean 'half'?"),
        ("rich", {"budget.tokens": 9000}, "budget.tokens cannot differ"),
        ("lucky", {"seed": 9}, "seed cannot differ"),
        ("gone", {"coordinator.engine.model": "policies/gone"}, "no checkpoint at policies/gone"),
        ("person", {"coordinator.kind": "human", "coordinator.engine": None}, "cannot wait for a person"),
    ],
)
def test_a_rival_that_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, runner: Played, name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(SwarmError, match=re.escape(message)):
        compare_in(tmp_path / "c", (), config=with_rivals(**{name: settings}))
    assert runner.started == []


def test_a_comparison_in_which_a_run_ended_by_faults_says_so_and_fails(tmp_path: Path, runner: Played) -> None:
    runner.scripts = lambda config: honest(config)._replace(broken=arm_of(config) == "solo")
    lines: list[str] = []
    with pytest.raises(SwarmError, match=r"too many faults ended .*solo-s1"):
        compare_in(tmp_path / "c", ("swarm", "solo"), echo=lines.append)
    assert (tmp_path / "c" / "comparison.json").exists()
    assert any("solved" in line for line in lines)


def test_a_rival_is_run_compared_and_shown_beside_the_arms(tmp_path: Path, runner: Played) -> None:
    runner.scripts = lambda config: Script(chance({"by_hand": 0.2, "twin": 0.9}.get(arm_of(config), 0.9)))
    config = experiment(
        compare={
            "seeds": [1, 2, 3],
            "episodes": 40,
            "arms": ["swarm", "by_hand", "twin"],
            "rivals": {"by_hand": RULES, "twin": {"coordinator.temperature": 0.1}},
        }
    )
    lines: list[str] = []
    folder = tmp_path / "c"
    compare_arms(config, tmp_path / "demo.yaml", folder, echo=lines.append)
    assert runner.started == [f"{arm}-s{seed}" for arm in ("swarm", "by_hand", "twin") for seed in (1, 2, 3)]
    found = json.loads((folder / "comparison.json").read_text())
    assert {v["arm"]: v["outcome"] for v in found["verdicts"]} == {"by_hand": "beats", "twin": "ties with"}
    assert found["not_worse"]["by_hand"]["holds"] is True
    endings = {v["arm"]: v["text"].rpartition("; ")[2] for v in found["verdicts"]}
    assert endings["by_hand"] == "not worse than by_hand within a margin of .050"
    assert endings["twin"] == "not worse than twin within a margin of .050"
    assert "Does it beat the same with coordinator.temperature 0.1?" in (folder / "report.html").read_text()


# --- analysis ---


def test_clear_gain_is_called_a_win_and_equal_arms_a_tie(tmp_path: Path) -> None:
    result = compared(
        tmp_path,
        {"swarm": Script(chance(0.9)), "solo": Script(chance(0.2)), "rules": Script(chance(0.9))},
        episodes=20,
    )
    verdicts = {verdict.arm: verdict for verdict in result.verdicts}
    assert verdicts["solo"].outcome == "beats"
    assert verdicts["solo"].text.startswith("swarm beats solo by +.")
    assert verdicts["rules"].outcome == "ties with"
    assert "+.000" not in verdicts["rules"].text
    assert ".000 [.000, .000]" in verdicts["rules"].text
    assert "not shown to be no worse than rules" in verdicts["rules"].text  # 40 ties are too few
    assert any("ties with rules at the full budget" in line for line in result.setbacks)


def test_better_baseline_is_called_a_loss_beside_the_headline(tmp_path: Path) -> None:
    result = compared(tmp_path, {"solo": Script(chance(0.95)), "swarm": Script(chance(0.2))}, episodes=20)
    assert result.verdicts[0].outcome == "loses to"
    assert "swarm loses to solo at the full budget" in result.setbacks[0]


def test_gain_that_survives_a_null_control_is_not_credited(tmp_path: Path) -> None:
    result = compared(tmp_path, {"swarm": Script(chance(0.8)), "shuffled": Script(chance(0.8))})
    assert "not caused by its directives" in result.verdicts[0].text


def test_rates_at_smaller_budgets_count_only_early_solutions(tmp_path: Path) -> None:
    early_late = Script(lambda seed, episode: (1200.0, 2800.0, 5000.0, None)[episode % 4])
    row = compared(tmp_path, {"swarm": early_late}, episodes=8).rows[0]
    assert [row.rates[mark].estimate for mark in (1.0, 0.5, 0.25)] == [0.75, 0.5, 0.25]


def test_rounds_ratio_pairs_the_puzzles_that_both_solved(tmp_path: Path) -> None:
    fast = Script(lambda seed, episode: 2600.0)
    sometimes = Script(lambda seed, episode: 2600.0 if episode % 2 else None)
    rows = {row.arm: row for row in compared(tmp_path, {"swarm": fast, "time_slice": sometimes}).rows}
    # 260 tokens buy a round of eight agents and their coordinator, or eight rounds in which one of them acts
    assert rows["swarm"].rounds == 10
    assert rows["time_slice"].rounds == 80
    assert rows["time_slice"].rounds_ratio == pytest.approx(8)


def test_compute_counts_each_model_by_its_own_size_and_random_as_none(tmp_path: Path) -> None:
    sizes = {"policies/agent": 1_000_000, "policies/coordinator": 4_000_000}
    arms = {"swarm": Script(lambda s, e: 2600.0), "random": Script(lambda s, e: 2600.0)}
    rows = {row.arm: row for row in compared(tmp_path, arms, parameters=sizes.get).rows}
    assert rows["swarm"].gflop_agents == pytest.approx(2 * 1e6 * 2400 / 1e9)
    assert rows["swarm"].gflop_coordinator == pytest.approx(2 * 4e6 * 200 / 1e9)
    assert rows["random"].gflop_agents == 0
    unknown = compared(tmp_path / "unknown", {"swarm": Script(lambda s, e: 2600.0)}).rows[0]
    assert unknown.gflop_agents is None


def test_fair_arms_carry_no_flags(tmp_path: Path) -> None:
    arms = {arm: Script(chance(0.5)) for arm in ("solo", "swarm", "time_slice")}
    assert [row.flags for row in compared(tmp_path, arms).rows] == [[], [], []]


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        (Script(chance(0.5), puzzle=lambda seed, episode: [episode, seed, 1]), "differ from those of swarm"),
        (Script(chance(0.5), give_up_at=0.9), "below 98 % of the budget"),
        (Script(chance(0.5), give_up_at=1.2), "overshot the budget by more than one call"),
        (Script(chance(0.0), give_up_at=0.5, truncates=True), "ended by 'truncated'"),
        (Script(lambda seed, episode: 6100.0, give_up_at=1.1), "solved past the budget and count as unsolved"),
        (Script(chance(0.5), stop_after=3), "only 6 of 20 puzzles ended"),
        (Script(chance(0.5), fault_at=1), "2 faults"),
    ],
)
def test_departure_from_equal_terms_is_flagged_on_its_arm(tmp_path: Path, script: Script, flag: str) -> None:
    result = compared(tmp_path, {"swarm": Script(chance(0.5)), "rules": script})
    rows = {row.arm: row for row in result.rows}
    assert rows["swarm"].flags == []
    assert any(flag in text for text in rows["rules"].flags), rows["rules"].flags
    assert "rules !" in table_text(result)
    assert "see the flags" in result.verdicts[0].text


def test_arm_that_equals_the_experiment_is_flagged(tmp_path: Path) -> None:
    base = experiment(coordinator={"kind": "rules"})
    for arm in ("rules", "swarm"):
        write_run(tmp_path / arm, equal_terms(base, arm, 1, 4), Script(chance(0.5)))
    runs = {arm: [read_run(tmp_path / arm)] for arm in ("rules", "swarm")}
    result = analyse(
        "demo", runs, budget=6000, seeds=[1], episodes=4, resamples=200, skipped={}, parameters=lambda _: None
    )
    assert result.rows[0].flags == ["the same experiment as swarm: there is nothing to compare"]


def test_other_weights_under_the_same_name_are_flagged(tmp_path: Path) -> None:
    for arm, weights in (("swarm", "old"), ("random", "new")):
        write_run(tmp_path / arm, equal_terms(experiment(), arm, 1, 4), Script(chance(0.5)), weights)
    runs = {arm: [read_run(tmp_path / arm)] for arm in ("swarm", "random")}
    result = analyse(
        "demo", runs, budget=6000, seeds=[1], episodes=4, resamples=200, skipped={}, parameters=lambda _: None
    )
    assert any("other weights" in flag for flag in result.rows[1].flags)


def test_repeated_puzzles_widen_the_interval(tmp_path: Path) -> None:
    flip = {"solved_at": lambda seed, episode: 2600.0 if episode % 2 else None}
    fresh = compared(tmp_path / "a", {"swarm": Script(**flip)}, episodes=20).rows[0].rates[1.0]
    same = Script(**flip, puzzle=lambda seed, episode: [episode])
    repeated = compared(tmp_path / "b", {"swarm": same}, episodes=20).rows[0].rates[1.0]
    assert repeated.high - repeated.low > 1.2 * (fresh.high - fresh.low)


# --- the whole command ---


def test_comparison_runs_every_arm_and_seed_and_writes_all_files(tmp_path: Path, drawing_runner: Played) -> None:
    lines: list[str] = []
    policies = tmp_path / "policies" / "agent"
    policies.mkdir(parents=True)
    (policies / "config.json").write_text('{"num_parameters": 1000000}')
    out = tmp_path / "out"
    compare_arms(experiment(), tmp_path / "demo.yaml", out, echo=lines.append)
    assert drawing_runner.started == [
        f"{arm}-s{seed}" for arm in ARMS if ARMS[arm].needs not in ("memory", "shared", "control") for seed in (1, 2, 3)
    ]
    for name in ("table.txt", "comparison.json", "coverage.png", "solve_rate.png", "report.html"):
        assert (out / name).stat().st_size > 500
    data = json.loads((out / "comparison.json").read_text())
    rows = {row["arm"]: row for row in data["rows"]}
    assert rows["swarm"]["n"] == 60
    assert rows["swarm"]["differences"] == []
    assert rows["solo"]["differences"][0]["interval"]["low"] > 0.3
    assert rows["swarm"]["gflop_agents"] > 0
    assert rows["swarm"]["gflop_coordinator"] is None
    assert rows["time_slice"]["rounds_ratio"] > 4
    assert data["arms"]["solo"]["runs"][0]["config"]["world"]["options"] == {"view": "full"}
    table = (out / "table.txt").read_text()
    assert all(len(line) <= 100 for line in table.splitlines())
    assert "[27/27] random seed 3" in "\n".join(lines)
    assert table in lines
    page = (out / "report.html").read_text()
    assert page.index("Where swarm ties or loses") < page.index("<h2>Results</h2>")
    assert page.count("data:image/png;base64,") == 2
    for arm in ARMS.values():
        assert arm.title in page
    for said in (data["headline"], data["setting"], *data["setbacks"], *data["questions"][0].values()):
        assert html.escape(said) in page
    assert data["arms"]["solo"]["changes"]["world.options.view"] == "full"
    assert data["arms"]["swarm"]["changes"] == {}
    assert "world.options.view: full" in page
    assert data["arms"]["random"]["runs"][2]["journal_hash"] in page


def test_second_call_reuses_finished_runs_and_gives_the_same_table(tmp_path: Path, runner: Played) -> None:
    out = compare_in(tmp_path / "out", ("solo", "swarm"), (1, 2))
    first = (out / "table.txt").read_text()
    lines: list[str] = []
    compare_in(tmp_path / "out", ("solo", "swarm"), (1, 2), echo=lines.append)
    assert len(runner.started) == 4
    assert runner.resumed == []
    assert sum("kept from before" in line for line in lines) == 4
    assert (out / "table.txt").read_text() == first


def test_killed_comparison_resumes_where_it_stopped(tmp_path: Path, runner: Played) -> None:
    runner.die_at = "swarm-s1"
    with pytest.raises(KeyboardInterrupt):
        compare_in(tmp_path / "out", ("solo", "swarm"), (1, 2))
    runner.die_at = None
    out = compare_in(tmp_path / "out", ("solo", "swarm"), (1, 2))
    assert runner.resumed == ["swarm-s1"]
    assert runner.started == ["solo-s1", "solo-s2", "swarm-s1", "swarm-s2"]
    undisturbed = compare_in(tmp_path / "other", ("solo", "swarm"), (1, 2))
    rows = [json.loads((folder / "comparison.json").read_text())["rows"] for folder in (out, undisturbed)]
    assert [{**row, "wall_s": 0} for row in rows[0]] == [{**row, "wall_s": 0} for row in rows[1]]


def test_folder_with_runs_of_another_experiment_is_refused(tmp_path: Path, runner: Played) -> None:
    compare_in(tmp_path / "out", ("solo",))
    with pytest.raises(SwarmError, match=r"other settings \(budget.tokens is 6000 there and 5000 here\).*--out"):
        compare_in(tmp_path / "out", ("solo",), config=experiment(budget={"tokens": 5000}))


def test_arms_that_do_not_apply_are_reported_in_every_output(tmp_path: Path, runner: Played) -> None:
    lines: list[str] = []
    graph = experiment(world={"id": "graph-v0"})
    arms = ("independent", "no_messages", "swarm")
    out = compare_in(tmp_path / "out", arms, config=graph, echo=lines.append)
    assert any("not applicable to graph-v0" in line for line in lines)
    for name in ("table.txt", "comparison.json", "report.html"):
        assert "not applicable to graph-v0" in (out / name).read_text()
    assert not (out / "independent-s1").exists()


def test_run_that_stops_without_an_end_stops_the_comparison(tmp_path: Path, runner: Played) -> None:
    runner.scripts = lambda config: Script(chance(0.5), stop_after=3)
    with pytest.raises(SwarmError, match="give the same command to continue"):
        compare_in(tmp_path / "out", ("swarm",))


def test_run_killed_before_its_first_record_is_resumed(tmp_path: Path, runner: Played) -> None:
    (tmp_path / "out" / "solo-s1").mkdir(parents=True)
    (tmp_path / "out" / "solo-s1" / "journal.jsonl").touch()
    (tmp_path / "out" / "lock").touch()  # says that the folder is ours
    compare_in(tmp_path / "out", ("solo",))
    assert (runner.started, runner.resumed) == ([], ["solo-s1"])


def test_finished_run_of_other_weights_is_not_reused(
    tmp_path: Path, runner: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare_in(tmp_path / "out", ("solo",))
    (tmp_path / "policies" / "agent").mkdir(parents=True)
    checkpoints = ModuleType("ulm.checkpoint")
    monkeypatch.setitem(sys.modules, "ulm.checkpoint", checkpoints)
    monkeypatch.setattr(checkpoints, "checkpoint_hash", lambda _: "w1-policies/agent", raising=False)
    compare_in(tmp_path / "out", ("solo",))
    monkeypatch.setattr(checkpoints, "checkpoint_hash", lambda _: "retrained")
    with pytest.raises(SwarmError, match="other weights than policies/agent"):
        compare_in(tmp_path / "out", ("solo",))


def test_a_seed_that_is_none_is_one_line_before_anything_runs() -> None:
    with pytest.raises(SwarmError, match=r"^--seed: seed is -1; allowed: a whole number >= 0 and < 2\^63$"):
        equal_terms(experiment(), "solo", -1, 5)
