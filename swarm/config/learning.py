"""`learning`: how agents learn between rounds of episodes, and what a learning step must pass.

Owns the settings; what they do is in `swarm.learn`. Without the section nobody learns.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from swarm.config.section import Section, refuse_where

PUT_TOGETHER = ("mean", "concat", "regmean")
"""Ways to share that put deltas together."""

Share = Annotated[float, Field(ge=0, le=1)]


class DeltaSettings(Section):
    """How much of an agent can change: a delta beside the frozen weights that all share."""

    rank: int = Field(8, ge=1, le=64)
    """Rank of what is added to each linear layer (LoRA)."""

    layers: int | None = Field(None, ge=1)
    """How many of the last blocks change; null for all. Fewer learn faster: training goes no further back."""

    rows: int = Field(512, ge=0)
    """Embeddings that may change: of so many tokens at most, those of the texts that it learns from; 0 for none."""


class TestSettings(Section):
    """What a learning step must pass on what it did not learn from; one that fails is tried at half the rate, once."""

    on: bool = True
    """false accepts every step; what the test would have said is on record all the same."""

    probe: int = Field(200, ge=0, le=10_000)
    """Held-out examples of what the base was taught; where it has no lessons, first prompts of earlier episodes that
    `tasks` keeps out, as many as there are, with the base's own greedy answers; 0 for none."""

    kinds: list[str] = Field(default_factory=list)
    """Kinds of the lessons' examples that the probe has and that are rehearsed; an empty list takes all in which
    puzzles are held out, and rehearses as the base was taught."""

    drop: float = Field(0.02, ge=0, le=1)
    """How far the share of right answers to the probe may fall below that of the base. Without lessons an answer is
    right if the world makes as much of it as of the base's; those that are better make up for others."""

    kl: float = Field(2.0, gt=0)
    """Largest KL(new, base) on the new task, in nats per token: how far a step may lead away from the base."""

    text: float = Field(0.05, ge=0)
    """How far the bits per byte of a plain text may rise, as a share of those of the base; for pretrained models."""

    tasks: Share = 0.1
    """Share of a round's puzzles, by hash, that are kept out of learning; the old and the new delta play them, and
    the new one may not be worse beyond a 95 % interval."""


class ExploreSettings(Section):
    """Random legal attempts (`World.sample_action`) after each round.

    They know the rules, search for nothing, and cost world actions but no tokens. Those that are right, or were
    relabelled, are learned from.
    """

    attempts: int = Field(ge=1)
    """At each puzzle of a round."""

    puzzles: int = Field(0, ge=0)
    """Puzzles besides those of the round."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the world that differ for those besides."""

    @model_validator(mode="after")
    def _options_need_puzzles(self) -> ExploreSettings:
        refuse_where((bool(self.options) and not self.puzzles, "`options` are for puzzles of its own; set `puzzles`"))
        return self


class ExamSettings(Section):
    """Episodes after the last round, played with what was learned; nothing is learned from them."""

    episodes: int = Field(ge=1)
    """How many."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the world that differ, such as the puzzles that were held out."""

    budget: dict[str, int | None] = Field(default_factory=dict)
    """Limits of an episode that differ."""


class LearningConfig(Section):
    """How agents learn from what the world answers."""

    levels: Literal["easiest", "fitting"] = "easiest"
    """At which level of difficulty puzzles are played, in worlds that have several: at the `easiest`, or at the hardest
    of which agents solved between .1 and .9 lately, or that is nearest to that (`fitting`; the exam is the hardest)."""

    method: Literal["expert_iteration", "grpo", "elite", "best_of_group"] = "expert_iteration"
    """`expert_iteration` imitates what was right (rare reward); `grpo` weighs each attempt against others at the same
    puzzle and turn (reward in 5 to 95 % of them); `elite` imitates the best of all rounds (scores); `best_of_group` the
    best attempt of each group of this round, where it changes what is good (RAFT, Dong et al., arXiv:2304.06767)."""

    every: int = Field(ge=1)
    """Episodes of a round; a learning step follows each round."""

    group: int = Field(1, ge=1, le=64)
    """Episodes of one puzzle, one after the other; `grpo` and `best_of_group` compare attempts within a group."""

    learner: Literal["agent", "team"] = "agent"
    """Whether each agent learns from its own attempts, or one delta from those of all."""

    begin: Literal["base", "parent"] = "parent"
    """Whether a step goes on from what was learned before, or begins anew at the base with all records so far."""

    delta: DeltaSettings = DeltaSettings()
    """What can change."""

    steps: int = Field(100, ge=0)
    """Optimizer steps of a learning step; with 0 nobody learns, the control of all comparisons."""

    batch: int = Field(64, ge=1)
    """Examples of an optimizer step."""

    epochs: float = Field(4.0, gt=0)
    """How often a sample is met in a learning step, on average, at most; where samples are few, steps are fewer."""

    lr: float = Field(3e-3, gt=0)
    """Peak learning rate; it rises over a tenth of the steps and falls along a cosine."""

    hindsight: Share = 0.0
    """Share of examples that are attempts relabelled with what they would have been right for, in worlds that can."""

    explore: ExploreSettings | None = None
    """Random legal attempts that are learned from, too, as the agents' own; null for none."""

    rehearse: Share = 0.0
    """Share of examples that keep what the base could do: prompts of its lessons, or for a pretrained model that chats
    ordinary requests, with its own greedy answers."""

    predict: Share = 0.0
    """Share of examples in which an agent predicts the world's answer to its own action."""

    per_task: int = Field(3, ge=1)
    """Distinct right answers that are kept for each prompt: the shortest, for one learns slowly when many are right."""

    team_reward: Share = 0.0
    """Share of the team's mean reward in each agent's. Above 0 an attempt counts for all that came in its episode from
    it on: a message is right if it was understood later. `grpo` always counts what came later."""

    teach: bool = False
    """Whether answers that were right under a coordinator's directive are imitated without it, too: agents come to do
    by themselves what they were told to do."""

    share: Literal["none", "data", "mean", "concat", "regmean"] = "none"
    """What one learns, all can have: `data` gives right answers to all; the others put deltas together after each
    round, as what they were before and to that the mean or, `concat`, the sum of what each has added since, cut back to
    `delta.rank`. In the mean of `regmean` an agent counts as far as its own texts use a direction of the weights."""

    share_rate: float = Field(1.0, gt=0)
    """Multiplies what was added where deltas are put together, up to the sum. The mean of many agents is a short step,
    the sum of long rounds too long a one."""

    control: Literal["none", "permuted", "answers", "swapped", "random"] = "none"
    """Null controls. `permuted`: what attempts came to is permuted among them; `answers`: what `predict` learns is. In
    the exam, `swapped`: each agent has what the next one learned; `random`: a random delta of equal norm."""

    test: TestSettings = TestSettings()
    """What a step must pass."""

    exam: ExamSettings | None = None
    """What is played after the last round."""

    @property
    def has_own_deltas(self) -> bool:
        """Whether what an agent has learned may differ from what others have."""
        return self.learner == "agent" and self.share in ("none", "data")

    @model_validator(mode="after")
    def _fits(self) -> LearningConfig:
        shares = self.hindsight + self.rehearse + self.predict
        refuse_where(
            (shares > 1, "hindsight, rehearse and predict are shares of one batch; their sum must not exceed 1"),
            (self.every % self.group != 0, f"`every` must be a multiple of `group`, {self.group}"),
            (
                self.method in ("grpo", "best_of_group") and self.group < 2,
                f"{self.method} compares episodes of one puzzle; set `group`: 8 to 16",
            ),
            (
                self.learner == "team" and self.share != "none",
                "with learner: team all agents have one delta; leave `share` out",
            ),
            (
                self.share_rate != 1.0 and self.share not in PUT_TOGETHER,
                "share_rate is for deltas that are put together; set share: regmean, mean or concat",
            ),
            (
                self.control == "answers" and not self.predict,
                "control: answers permutes what is predicted; set `predict`",
            ),
            (
                self.control in ("swapped", "random") and self.exam is None,
                f"control: {self.control} changes what agents play the exam with; set `exam`",
            ),
            (
                self.control == "swapped" and not self.has_own_deltas,
                "control: swapped needs agents that have deltas of their own; leave `learner` and `share` out",
            ),
            (
                self.method == "grpo" and self.teach,
                "grpo weighs answers to the prompts that agents read; `teach` needs another method",
            ),
            (
                self.method == "grpo" and self.begin == "base",
                "grpo weighs attempts of the current policy; set begin: parent",
            ),
            (
                self.explore and not self.hindsight and self.method == "grpo",
                "grpo learns from random attempts by `hindsight` alone; set it, or leave `explore` out",
            ),
        )
        return self
