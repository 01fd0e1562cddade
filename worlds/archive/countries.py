"""Countries as archive-v0 knows them: the same pages and questions as of a town, of what is so in the real world.

- A file says so, which nobody ships: `countries.json` of github.com/mledoze/countries (ODbL 1.0).
- Every relation has one value at a time. So a country with two languages has none here, and of its neighbours it has
  the largest and the smallest.
- Some countries are called like their capital, and some capitals like another one. No question begins with the latter.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from worlds.archive.town import Fact, Thing, Town
from worlds.protocol import WorldError


def _named(value: Any) -> Any:
    """Return the names in a mapping of the file, which writes an empty one as a list."""
    rows = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(rows, list):
        raise ValueError("it is neither a list nor an object")
    return [row["name"] if isinstance(row, Mapping) and "name" in row else row for row in rows]


_Name = Annotated[str, Field(pattern=r"^[^\[\]|;\n]{1,60}$")]
_Names = Annotated[tuple[_Name, ...], BeforeValidator(_named)]


class Country(BaseModel):
    """What is read of a country."""

    name: _Name = Field(validation_alias=AliasPath("name", "common"))
    cca3: str
    subregion: Annotated[str, Field(max_length=60)]
    area: float
    capital: _Names
    currencies: _Names
    languages: _Names
    borders: tuple[str, ...]


_FILE = TypeAdapter(tuple[Country, ...])


def parse_countries(path: Path, text: str) -> tuple[Country, ...]:
    """Return the countries of a file.

    Raises:
        WorldError: it holds something else, or none.
    """
    try:
        found = _FILE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise WorldError(
            f"{path} is no countries.json as of github.com/mledoze/countries: {where}: {first['msg']}"
        ) from error
    if not found:
        raise WorldError(f"{path} holds no countries")
    return found


class Countries(Town):
    """Some countries, those that are near each other first, and their capitals.

    Args:
        rng: decides everything.
        file: all countries.
        count: how many of them there are here; all where the file has fewer.
        wordings: `seen`, `held_out`, or `both` sentences.
    """

    def __init__(self, rng: random.Random, file: Sequence[Country], count: int, wordings: str = "seen") -> None:
        self.rng, self.wordings, self.things = rng, wordings, []
        here = _near(rng, file, count)
        own = {one.cca3: self._add("country", one.name.lower()) for one in here}
        areas = {one.cca3: one.area for one in file}
        others: dict[tuple[str, str], Thing] = {}
        for one in here:
            country = own[one.cca3]
            if len(one.capital) == 1:
                city = self._add("city", one.capital[0].lower())
                country.facts["capital"], city.facts["capital_of"] = _always(city), _always(country)
            values = {"currency": one.currencies, "language": one.languages, "subregion": (one.subregion,)}
            for relation, names in values.items():
                if len(names) == 1 and (name := names[0].lower()):
                    if (relation, name) not in others:
                        others[relation, name] = self._add(relation, name)
                    country.facts[relation] = _always(others[relation, name])
            around = sorted((code for code in one.borders if code in areas), key=lambda code: (areas[code], code))
            ends = {"largest_neighbour": around[-1:], "smallest_neighbour": around[:1] if len(around) > 1 else []}
            for relation, codes in ends.items():
                if codes and codes[0] in own:
                    country.facts[relation] = _always(own[codes[0]])

    def names_of(self, number: int) -> tuple[str, ...]:
        """Return what a thing is called: a capital's name is the right answer whatever else is called so."""
        return self.things[number].names

    def is_namesake(self, thing: Thing) -> bool:
        """Return that nobody has to be told apart: no question begins with such a thing."""
        return False

    @property
    def starts(self) -> list[Thing]:
        """What a question may name: what no other of its type is called like."""
        return [thing for thing in super().starts if not super(Countries, self).is_namesake(thing)]


def _always(thing: Thing) -> list[Fact]:
    return [(1, thing.number)]


def _near(rng: random.Random, file: Sequence[Country], count: int) -> list[Country]:
    """Return so many countries, neighbours of those before as far as there are any."""
    left, found = {one.cca3: one for one in file}, list[Country]()
    while left and len(found) < count:
        near = sorted({code for one in found for code in one.borders if code in left})
        found.append(left.pop(rng.choice(near or sorted(left))))
    return found
