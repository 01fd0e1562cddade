"""What documents of archive-v0 may say: relations, and the sentences that say them.

Owns words alone. `{s}` stands for who is spoken of, `{o}` for the other one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

TRADES = (
    "smith", "weaver", "baker", "miller", "cooper", "mason", "tailor", "potter", "carter", "fisher", "glazier",
    "tanner", "brewer", "saddler", "roofer", "dyer",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Relation:
    """How one thing stands to another.

    Attributes:
        domain, range: types of both; "" is a text.
        noun: what a question calls it: `the NOUN of X`.
        nouns: other words for that.
        wordings: sentences that say it.
        held_out: sentences that no lesson has.
        symmetric: what holds of a and b holds of b and a.
        constant: it never changes.
    """

    domain: str
    range: str
    noun: str
    nouns: tuple[str, ...]
    wordings: tuple[str, ...]
    held_out: tuple[str, str]
    symmetric: bool = False
    constant: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """Its flags, as `World.claims` has them."""
        own = ("symmetric", "constant", "is_property")
        return ("functional", *(name for name in own if getattr(self, name)))

    @property
    def is_property(self) -> bool:
        """Whether its values are texts."""
        return not self.range


TOWNS: Mapping[str, Relation] = {
    "trade": Relation(
        "person",
        "",
        "trade",
        ("craft", "profession"),
        (
            "{s} is a {o}",
            "{s} works as a {o}",
            "{s} earns a living as a {o}",
            "{s} learned the trade of a {o}",
            "the trade of {s} is that of a {o}",
            "by trade {s} is a {o}",
            "{s} took up the trade of a {o}",
            "{s} has always been a {o}",
            "{s} is known as a {o}",
            "{s} serves the town as a {o}",
            "the work of {s} is that of a {o}",
            "{s} set up shop as a {o}",
        ),
        ("{s} makes a living as a {o}", "people hire {s} as a {o}"),
        constant=True,
    ),
    "lives_in": Relation(
        "person",
        "place",
        "home",
        ("town", "place of residence"),
        (
            "{s} lives in {o}",
            "{s} has a house in {o}",
            "{s} settled in {o}",
            "the home of {s} is in {o}",
            "{s} rents a room in {o}",
            "{o} is where {s} lives",
            "{s} dwells in {o}",
            "{s} resides in {o}",
            "{s} moved to {o}",
            "{s} calls {o} home",
            "{o} is the home of {s}",
            "{s} stays in {o}",
        ),
        ("{s} makes a home in {o}", "in {o} stands the house of {s}"),
    ),
    "born_in": Relation(
        "person",
        "place",
        "birthplace",
        ("native town", "place of birth"),
        (
            "{s} was born in {o}",
            "{s} came into the world in {o}",
            "{s} is a native of {o}",
            "{o} is the birthplace of {s}",
            "the cradle of {s} stood in {o}",
            "{s} first saw the light in {o}",
            "{s} comes from {o}",
            "{s} hails from {o}",
            "the birthplace of {s} is {o}",
            "{s} was a child of {o}",
            "{o} saw the birth of {s}",
            "the birth of {s} took place in {o}",
        ),
        ("{s} is by birth from {o}", "it was in {o} that {s} was born"),
        constant=True,
    ),
    "works_for": Relation(
        "person",
        "firm",
        "employer",
        ("firm", "company"),
        (
            "{s} works for {o}",
            "{s} is employed by {o}",
            "{s} earns wages at {o}",
            "{o} employs {s}",
            "the employer of {s} is {o}",
            "{s} took a post with {o}",
            "{s} has a job at {o}",
            "{s} serves {o}",
            "{s} labours for {o}",
            "{o} gives work to {s}",
            "{o} hired {s}",
            "the wages of {s} come from {o}",
        ),
        ("{s} is on the payroll of {o}", "{o} pays the wages of {s}"),
    ),
    "married_to": Relation(
        "person",
        "person",
        "spouse",
        ("partner", "other half"),
        (
            "{s} is married to {o}",
            "{s} wed {o}",
            "the spouse of {s} is {o}",
            "{s} and {o} are a married couple",
            "{o} is the spouse of {s}",
            "{s} exchanged vows with {o}",
            "{s} took {o} in marriage",
            "{s} shares a marriage with {o}",
            "{s} and {o} were joined in marriage",
            "{s} said yes to {o}",
            "the wedding of {s} and {o} was a feast",
            "{s} gave a ring to {o}",
        ),
        ("{s} and {o} are husband and wife", "{s} tied the knot with {o}"),
        symmetric=True,
    ),
    "teacher": Relation(
        "person",
        "person",
        "teacher",
        ("master", "mentor"),
        (
            "{s} was taught by {o}",
            "{s} learned everything from {o}",
            "the teacher of {s} was {o}",
            "{o} taught {s}",
            "{o} trained {s}",
            "{s} was the pupil of {o}",
            "{s} learned the craft from {o}",
            "{o} instructed {s}",
            "{s} was trained by {o}",
            "{s} owes all skill to {o}",
            "{s} studied under {o}",
            "{o} showed {s} the craft",
        ),
        ("{s} took lessons from {o}", "{o} was the master of {s}"),
        constant=True,
    ),
    "seat": Relation(
        "firm",
        "place",
        "seat",
        ("headquarters", "main office"),
        (
            "{s} has its seat in {o}",
            "{s} is based in {o}",
            "the seat of {s} is {o}",
            "the workshops of {s} are in {o}",
            "{o} is the seat of {s}",
            "{s} does business from {o}",
            "{s} is at home in {o}",
            "{s} runs its business from {o}",
            "the office of {s} is in {o}",
            "{s} has its workshops in {o}",
            "{s} works out of {o}",
            "{o} is home to {s}",
        ),
        ("{s} keeps its offices in {o}", "the headquarters of {s} are in {o}"),
    ),
    "head": Relation(
        "firm",
        "person",
        "head",
        ("director", "chief"),
        (
            "{s} is led by {o}",
            "{s} is run by {o}",
            "the head of {s} is {o}",
            "{o} heads {s}",
            "{o} runs {s}",
            "{o} is in charge of {s}",
            "{o} leads {s}",
            "{o} is the head of {s}",
            "{s} is headed by {o}",
            "{s} has {o} at its head",
            "{s} takes orders from {o}",
            "{o} gives the orders at {s}",
        ),
        ("{o} is the director of {s}", "at the top of {s} stands {o}"),
    ),
    "mayor": Relation(
        "place",
        "person",
        "mayor",
        ("leader", "first citizen"),
        (
            "the mayor of {s} is {o}",
            "{s} is governed by {o}",
            "{o} is the mayor of {s}",
            "{s} elected {o} as mayor",
            "{o} governs {s}",
            "the people of {s} follow {o} as mayor",
            "{o} was elected mayor of {s}",
            "{o} rules {s}",
            "{s} is ruled by {o}",
            "{o} leads the people of {s}",
            "{s} made {o} its mayor",
            "{s} obeys {o} as mayor",
        ),
        ("{o} holds the office of mayor in {s}", "{s} has {o} for a mayor"),
    ),
    "region": Relation(
        "place",
        "region",
        "region",
        ("province", "county"),
        (
            "{s} lies in {o}",
            "{s} belongs to {o}",
            "{s} is a town of {o}",
            "{s} is part of {o}",
            "{o} is the region of {s}",
            "the region of {s} is {o}",
            "{s} is in {o}",
            "{s} is located in {o}",
            "{o} contains {s}",
            "{o} has {s} as a town",
            "{s} is a place in {o}",
            "{o} takes in {s}",
        ),
        ("{s} is found in {o}", "{o} counts {s} among its towns"),
        constant=True,
    ),
}
"""Relations of made-up towns."""

COUNTRIES: Mapping[str, Relation] = {
    "capital": Relation(
        "country",
        "city",
        "capital",
        ("capital city",),
        (
            "the capital of {s} is {o}",
            "{s} has {o} as its capital",
            "{s} is governed from {o}",
            "{s} chose {o} as its capital",
            "the flag of {s} flies over its capital {o}",
            "maps of {s} mark {o} as its capital",
        ),
        ("the capital city of {s} is called {o}", "{s} keeps its government in {o}"),
        constant=True,
    ),
    "capital_of": Relation(
        "city",
        "country",
        "country",
        ("nation",),
        (
            "{s} is the capital of {o}",
            "{s} serves as the capital of {o}",
            "{s} has the rank of capital in {o}",
            "the nation whose capital is {s} is {o}",
            "{s} is known as the capital of {o}",
            "maps of {o} mark {s} as the capital",
        ),
        ("the title of capital of {o} belongs to {s}", "as a capital {s} stands for {o}"),
        constant=True,
    ),
    "currency": Relation(
        "country",
        "currency",
        "currency",
        ("money", "legal tender"),
        (
            "the currency of {s} is {o}",
            "{o} is the currency of {s}",
            "in {s} people pay with {o}",
            "{s} uses {o} as its currency",
            "prices in {s} are given in {o}",
            "the banks of {s} deal in {o}",
        ),
        ("whoever buys in {s} needs {o}", "{s} has {o} for money"),
        constant=True,
    ),
    "language": Relation(
        "country",
        "language",
        "language",
        ("official language", "tongue"),
        (
            "the language of {s} is {o}",
            "{o} is the official language of {s}",
            "in {s} people speak {o}",
            "the laws of {s} are written in {o}",
            "{s} has {o} as its language",
            "signs in {s} are in {o}",
        ),
        ("the schools of {s} teach in {o}", "whoever comes to {s} needs to know {o}"),
        constant=True,
    ),
    "subregion": Relation(
        "country",
        "subregion",
        "subregion",
        ("part of the world",),
        (
            "{s} is a country of {o}",
            "{o} is the part of the world that {s} is in",
            "geographers count {s} as {o}",
            "on maps {s} is shown in {o}",
            "the subregion of {s} is {o}",
            "{s} is counted among the countries of {o}",
        ),
        ("atlases list {s} under {o}", "{s} is one of the countries of {o}"),
        constant=True,
    ),
    "largest_neighbour": Relation(
        "country",
        "country",
        "largest neighbour",
        ("biggest neighbour",),
        (
            "the largest neighbour of {s} is {o}",
            "{s} has {o} as its largest neighbour",
            "{o} is the largest country that borders {s}",
            "no neighbour of {s} is larger than {o}",
            "of all countries around {s} the largest is {o}",
            "{s} is next to {o} , its largest neighbour",
        ),
        ("the biggest country next to {s} is {o}", "{s} borders nothing larger than {o}"),
        constant=True,
    ),
    "smallest_neighbour": Relation(
        "country",
        "country",
        "smallest neighbour",
        ("tiniest neighbour",),
        (
            "the smallest neighbour of {s} is {o}",
            "{s} has {o} as its smallest neighbour",
            "{o} is the smallest country that borders {s}",
            "no neighbour of {s} is smaller than {o}",
            "of all countries around {s} the smallest is {o}",
            "{s} is next to {o} , its smallest neighbour",
        ),
        ("the tiniest country next to {s} is {o}", "{s} borders nothing smaller than {o}"),
        constant=True,
    ),
}
"""Relations of countries as they are."""

RELATIONS: Mapping[str, Relation] = {**TOWNS, **COUNTRIES}
"""All relations; every one has one value at a time."""

LEADING = frozenset(relation.domain for relation in RELATIONS.values())
"""Types of which more is said, so that a question may go on from there."""

FILLERS = (
    "the winter was long and cold that year",
    "the ink of this page is faded",
    "a market is held there on fridays",
    "nobody knows who wrote this down",
    "much else was said and forgotten",
    "the bells ring twice a day",
    "rain fell for nine days",
    "the old bridge is closed",
)
"""Sentences that say nothing of anybody."""
