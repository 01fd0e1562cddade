"""Regular expressions as automata over UTF-8 bytes.

Owns the reader of a small pattern language (Python's `re` without what is not regular), Thompson's
construction ("Regular Expression Search Algorithm", 1968) and the subset construction, with bounds on all of
them. Bytes, not characters, because a token may be a part of a character. It refuses to know tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MAX_STATES", "compile_choices", "compile_regex", "reaching"]

MAX_STATES = 10_000
MAX_NODES = 50_000
MAX_DEPTH = 100

Ranges = list[tuple[int, int]]
_SURROGATES = (0xD800, 0xDFFF)
_LAST = 0x10FFFF
_DIGITS: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0D), (0x20, 0x20)]
_CONTROLS = {"n": 0x0A, "t": 0x09, "r": 0x0D, "f": 0x0C, "v": 0x0B, "a": 0x07}
_GROUPS = {"=": "lookahead", "!": "lookahead", "<": "lookbehind", "P": "named group", ">": "atomic group"}


Automaton = tuple[list[dict[int, int]], set[int]]
"""Edges by state and byte, and the final states; 0 is the start, every edge leads towards a final state."""


def compile_regex(pattern: str) -> Automaton:
    """Return the automaton of the texts that `re.fullmatch(pattern, text, re.ASCII)` accepts.

    Raises:
        ValueError: a construct is not understood (the message names it), no text matches, or too many states.
    """
    return _determinise(_Nfa(pattern), _Parser(pattern).parse())


def compile_choices(choices: Sequence[str]) -> Automaton:
    """Return the automaton of exactly these texts.

    Raises:
        ValueError: there are none, or they need more than `MAX_STATES` states.
    """
    if not choices:
        raise ValueError("a constraint needs at least one choice")
    edges: list[dict[int, int]] = [{}]
    final: set[int] = set()
    for choice in choices:
        state = 0
        for byte in choice.encode():
            if byte not in edges[state]:
                if len(edges) == MAX_STATES:
                    raise ValueError(f"the choices need more than {MAX_STATES} states; give fewer or shorter ones")
                edges[state][byte] = len(edges)
                edges.append({})
            state = edges[state][byte]
        final.add(state)
    return edges, final


def reaching(successors: dict[int, list[int]], goals: set[int]) -> set[int]:
    """Return the states from which some goal can be reached."""
    predecessors: dict[int, set[int]] = {}
    for state, targets in successors.items():
        for target in targets:
            predecessors.setdefault(target, set()).add(state)
    reached, stack = set(goals), list(goals)
    while stack:
        for state in predecessors.get(stack.pop(), ()):
            if state not in reached:
                reached.add(state)
                stack.append(state)
    return reached


# The syntax tree of a pattern.
@dataclass(frozen=True, slots=True)
class _Set:
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Join:
    parts: tuple[_Tree, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Tree, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    body: _Tree
    least: int
    most: int | None


_Tree = _Set | _Join | _Choice | _Repeat


class _Parser:
    """Reads a pattern by recursive descent."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.depth = 0

    def parse(self) -> _Tree:
        tree = self._choice()
        if self.at < len(self.pattern):
            raise self._error("unbalanced )")
        return tree

    def _error(self, what: str) -> ValueError:
        return ValueError(f"constraint pattern {self.pattern[:40]!r}, character {self.at + 1}: {what}")

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _take(self) -> str:
        if not (character := self._peek()):
            raise self._error("the pattern ends too early")
        self.at += 1
        return character

    def _choice(self) -> _Tree:
        options = [self._join()]
        while self._peek() == "|":
            self.at += 1
            options.append(self._join())
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _join(self) -> _Tree:
        parts: list[_Tree] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeat(self._atom()))
        return parts[0] if len(parts) == 1 else _Join(tuple(parts))

    def _repeat(self, body: _Tree) -> _Tree:
        bounds = self._quantifier()
        if bounds is None:
            return body
        if self._peek() in ("?", "+"):
            kind = "lazy" if self._peek() == "?" else "possessive"
            raise self._error(f"{kind} quantifiers are not supported; a constraint has no order of attempts")
        if self._peek() in ("*", "{"):
            raise self._error("a quantifier follows a quantifier; put the first into a group")
        return _Repeat(body, *bounds)

    def _quantifier(self) -> tuple[int, int | None] | None:
        sign = self._peek()
        if sign in ("*", "+", "?") and sign:
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        if sign != "{":
            return None
        end = self.pattern.find("}", self.at)
        low, comma, high = self.pattern[self.at + 1 : max(end, self.at)].partition(",")
        valid = all(part == "" or (part.isascii() and part.isdigit()) for part in (low, high)) and (low or high)
        if end < 0 or not valid:
            raise self._error("{ begins no {m}, {m,}, {,n} or {m,n}; write \\{ for a brace")
        least = int(low or 0)
        most = (int(high) if high else None) if comma else least
        if most is not None and most < least:
            raise self._error(f"{{{least},{most}}} has its bounds in the wrong order")
        self.at = end + 1
        return least, most

    def _atom(self) -> _Tree:
        sign = self._take()
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._class()
        if sign == ".":
            return _Set(tuple(_complement([(0x0A, 0x0A)])))
        if sign == "\\":
            escaped = self._escape()
            return _Set(((escaped, escaped),) if isinstance(escaped, int) else tuple(escaped))
        if sign in "^$":
            self.at -= 1
            raise self._error(f"anchor {sign} is not supported; the whole text always has to match, leave it out")
        if sign in "*+?{":
            self.at -= 1
            raise self._error(f"quantifier {sign} has nothing to repeat")
        return _Set(((ord(sign), ord(sign)),))

    def _group(self) -> _Tree:
        if self._peek() == "?":
            kind = self.pattern[self.at + 1 : self.at + 2]
            if kind != ":":
                raise self._error(
                    f"{_GROUPS.get(kind, 'inline flag')} (?{kind}...) is not supported; use (...) or (?:...)"
                )
            self.at += 2
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"groups are nested deeper than {MAX_DEPTH}")
        tree = self._choice()
        if self._peek() != ")":
            raise self._error("a group is not closed; add )")
        self.at += 1
        self.depth -= 1
        return tree

    def _escape(self) -> int | Ranges:
        sign = self._take()
        for letter, ranges in (("d", _DIGITS), ("w", _WORD), ("s", _SPACE)):
            if sign.lower() == letter:
                return ranges if sign == letter else _complement(ranges)
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if sign in "xu":
            digits = self.pattern[self.at : self.at + (2 if sign == "x" else 4)]
            if len(digits) != (2 if sign == "x" else 4) or any(c not in "0123456789abcdefABCDEF" for c in digits):
                raise self._error(f"\\{sign} needs {2 if sign == 'x' else 4} hexadecimal digits")
            self.at += len(digits)
            return int(digits, 16)
        if sign.isascii() and sign.isalnum():
            what = "backreference" if sign.isdigit() else "anchor" if sign in "bBAZz" else "escape"
            raise self._error(f"{what} \\{sign} is not supported")
        return ord(sign)

    def _class(self) -> _Tree:
        negated = self._peek() == "^"
        self.at += 1 if negated else 0
        ranges: Ranges = []
        first = True
        while first or self._peek() != "]":
            if not self._peek():
                raise self._error("a class is not closed; add ]")
            first = False
            low = self._class_item()
            if self._peek() != "-" or self.pattern[self.at + 1 : self.at + 2] in ("", "]"):
                ranges += [(low, low)] if isinstance(low, int) else low
                continue
            self.at += 1
            high = self._class_item()
            if not isinstance(low, int) or not isinstance(high, int) or high < low:
                raise self._error(
                    "a class has a range that is none; write its lower character first, or \\- for a dash"
                )
            ranges.append((low, high))
        self.at += 1
        return _Set(tuple(_complement(ranges) if negated else ranges))

    def _class_item(self) -> int | Ranges:
        sign = self._take()
        return self._escape() if sign == "\\" else ord(sign)


def _complement(ranges: Ranges) -> Ranges:
    result, low = [], 0
    for start, end in sorted(ranges):
        if low < start:
            result.append((low, start - 1))
        low = max(low, end + 1)
    return [*result, (low, _LAST)] if low <= _LAST else result


def _utf8(low: int, high: int) -> list[tuple[tuple[int, int], ...]]:
    """Return byte ranges, one tuple per byte of the encoding, that cover the characters low..high exactly."""
    if low > high:
        return []
    if low <= _SURROGATES[1] and high >= _SURROGATES[0]:  # surrogates have no encoding
        return _utf8(low, min(high, _SURROGATES[0] - 1)) + _utf8(max(low, _SURROGATES[1] + 1), high)
    for last in (0x7F, 0x7FF, 0xFFFF):
        if low <= last < high:
            return _utf8(low, last) + _utf8(last + 1, high)
    for bits in (6, 12, 18) if high > 0x7F else ():
        tail = (1 << bits) - 1
        if low & ~tail == high & ~tail:
            break
        if low & tail:
            return _utf8(low, low | tail) + _utf8((low | tail) + 1, high)
        if high & tail != tail:
            return _utf8(low, (high & ~tail) - 1) + _utf8(high & ~tail, high)
    return [tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))]


class _Nfa:
    """Thompson's construction; nodes are numbers, arcs carry byte ranges."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.empty: list[list[int]] = []
        self.arcs: list[list[tuple[int, int, int]]] = []

    def node(self) -> int:
        if len(self.arcs) == MAX_NODES:
            raise ValueError(f"constraint pattern {self.pattern[:40]!r} is too large; shorten its counted repetitions")
        self.empty.append([])
        self.arcs.append([])
        return len(self.arcs) - 1

    def add(self, tree: _Tree, start: int) -> int:
        """Append the tree's automaton at `start` and return its end."""
        if isinstance(tree, _Join):
            for part in tree.parts:
                start = self.add(part, start)
            return start
        end = self.node()
        if isinstance(tree, _Set):
            for low, high in tree.ranges:
                for sequence in _utf8(low, high):
                    at = start
                    for i, (first, last) in enumerate(sequence):
                        to = end if i == len(sequence) - 1 else self.node()
                        self.arcs[at].append((first, last, to))
                        at = to
        elif isinstance(tree, _Choice):
            for option in tree.options:
                head = self.node()
                self.empty[start].append(head)
                self.empty[self.add(option, head)].append(end)
        else:
            self._add_repeat(tree, start, end)
        return end

    def _add_repeat(self, tree: _Repeat, start: int, end: int) -> None:
        for _ in range(tree.least):
            before, start = start, self.add(tree.body, start)
            if start == before:  # an empty body adds no node, so MAX_NODES would not end this loop
                break
        if tree.most is None:
            loop = self.node()
            self.empty[start].append(loop)
            self.empty[self.add(tree.body, loop)].append(loop)
            start = loop
        else:
            for _ in range(tree.most - tree.least):
                self.empty[start].append(end)
                before, start = start, self.add(tree.body, start)
                if start == before:
                    break
        self.empty[start].append(end)

    def closure(self, nodes: set[int]) -> frozenset[int]:
        reached, stack = set(nodes), list(nodes)
        while stack:
            for node in self.empty[stack.pop()]:
                if node not in reached:
                    reached.add(node)
                    stack.append(node)
        return frozenset(reached)


def _determinise(nfa: _Nfa, tree: _Tree) -> tuple[list[dict[int, int]], set[int]]:
    """Return the edges by state and byte, and the final states, of the states that can reach a final one."""
    start = nfa.node()
    end = nfa.add(tree, start)
    first = nfa.closure({start})
    numbers: dict[frozenset[int], int] = {first: 0}
    edges: list[dict[int, int]] = []
    todo = [first]
    for nodes in todo:
        targets: dict[int, set[int]] = {}
        for node in nodes:
            for low, high, to in nfa.arcs[node]:
                for byte in range(low, high + 1):
                    targets.setdefault(byte, set()).add(to)
        closures: dict[frozenset[int], frozenset[int]] = {}
        row: dict[int, int] = {}
        for byte, reached in targets.items():
            key = frozenset(reached)
            if key not in closures:
                closures[key] = nfa.closure(reached)
            closed = closures[key]
            if closed not in numbers:
                if len(numbers) == MAX_STATES:
                    raise ValueError(
                        f"constraint pattern {nfa.pattern[:40]!r} needs over {MAX_STATES} states; simplify it"
                    )
                numbers[closed] = len(numbers)
                todo.append(closed)
            row[byte] = numbers[closed]
        edges.append(row)
    final = {number for nodes, number in numbers.items() if end in nodes}
    if not final:
        raise ValueError(f"constraint pattern {nfa.pattern[:40]!r} matches no text")
    alive = reaching({state: list(row.values()) for state, row in enumerate(edges)}, final)
    # The numbers stay: a dead state keeps its place and no edge leads to it.
    return [{b: t for b, t in row.items() if t in alive} for row in edges], final
