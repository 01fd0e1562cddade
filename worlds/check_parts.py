"""Do the playbook and the lessons that a world brings keep their protocols?

Owns the rules that can be verified from outside: what rules and parsers return, on reports of a random play and on
garbage; that equal seeds give equal examples; that no held-out text is trained on. It lists, and raises nothing.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product

from worlds.protocol import Example, Lessons, Playbook, Report, Situation, World

Require = Callable[[bool, str, str], bool]
"""(holds, rule, what is wrong) -> holds; notes what does not."""

_TICKS = 12
_EXAMPLES = 40
_CORPUS = 20


def check_playbook(book: Playbook, world: World, seed: int, garbage: Sequence[str], require: Require) -> None:
    """Check the playbook on what a random policy reports.

    Args:
        book: what the world brings.
        world: a new world.
        seed: of an episode.
        garbage: answers that no parser may fall over.
        require: see `Require`.
    """
    for situation in _situations(world, seed):
        told = _directives("rules()", book.rules(situation), book, situation.agents, require)
        require(told == book.rules(situation), "rules pure", "playbook: rules() differs for equal situations")
        for briefing in book.briefings(situation):
            known = set(briefing.agents) <= set(situation.agents)
            if not require(known, "briefings", f"playbook: {briefing!r:.80} is no briefing for agents that can act"):
                return
            for text in (*garbage, " ".join(briefing.options), *told.values()):
                _directives("parse()", book.parse(text, briefing), book, briefing.agents, require)
                book.declined(text, briefing, cut=False)


def _situations(world: World, seed: int) -> Iterator[Situation]:
    """Yield what a playbook may know, tick by tick, while a random policy plays."""
    _, infos = world.reset(seed)
    reports: list[Report] = []
    for tick in range(_TICKS):
        reports += [Report(tick, agent, info["report"]) for agent, info in infos.items() if "report" in info]
        if not world.agents:
            return
        yield Situation(world.goal(), tuple(world.agents), tuple(reports), seed=seed)
        rng = random.Random(f"{seed} {tick}")  # noqa: S311  a policy, not a secret
        infos = world.step({agent: world.sample_action(agent, "", rng) for agent in world.agents}).infos


def _directives(
    place: str, directives: dict[str, str], book: Playbook, agents: Sequence[str], require: Require
) -> dict[str, str]:
    """Return directives, checked."""
    strange = sorted(set(directives) - set(agents))
    require(not strange, f"{place} agents", f"playbook: {place} directs agents that it was not asked for: {strange}")
    for text in directives.values():
        fits = re.fullmatch(book.directive, text) is not None
        require(fits, f"{place} form", f"playbook: {place} says {text!r:.60}, which does not match `directive`")
    return directives


def check_lessons(lessons: Lessons, garbage: Sequence[str], require: Require) -> None:
    """Check the lessons of every task.

    Args:
        lessons: what the world brings.
        garbage: answers that no judge may fall over or take for right.
        require: see `Require`.
    """
    for task, kinds in lessons.tasks.items():
        shown: dict[bool, set[Example]] = {False: set(), True: set()}
        for held_out, number in product((False, True), range(_EXAMPLES)):
            examples, again = (lessons.example(task, random.Random(number), held_out) for _ in range(2))  # noqa: S311
            require(examples == again, "lessons rng", f"lessons: {task} differs for equal generators")
            for example in examples:
                named = example.kind in kinds
                require(named, "kind", f"lessons: {task} shows the kind {example.kind!r}, which it does not name")
                right = lessons.judge(example, example.answer)
                require(right, "judge right", f"lessons: judge() refuses the answer of an example: {example!r:.120}")
                if example.kind not in lessons.practice:
                    shown[held_out].add(example)
            wrong = next((text for text in garbage if lessons.judge(examples[0], text)), None)
            require(wrong is None, "judge garbage", f"lessons: judge() takes {wrong!r:.60} for right")
        both = next(iter(shown[False] & shown[True]), None)
        require(both is None, "held out", f"lessons: {task} trains on what is held out: {both!r:.120}")
        texts = list(islice(lessons.corpus(task), _CORPUS))
        require(bool(texts), "corpus", f"lessons: corpus({task!r}) is empty")
