"""A scripted person who talks with a model and has five preferences, which no text of training mentions.

Each belongs to one kind of request. What the person would rather have read is a rule, so is whether an answer obeys.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]

GREETINGS = [
    "Good morning!",
    "Hello there.",
    "Hi, how are you today?",
    "Good evening.",
    "Hey, nice to meet you.",
    "Greetings!",
    "Good afternoon!",
    "Hello, how is it going?",
    "Hi!",
    "Good night.",
    "Hey, what's up?",
    "Hello again.",
    "How do you do?",
    "Nice to see you.",
    "Hello, my friend.",
    "Hi, I'm back.",
    "Welcome back!",
    "Good day to you.",
    "Hello, are you there?",
    "Hi, good to see you again.",
    "Hey there!",
    "Morning!",
    "Evening!",
    "How are you feeling today?",
    "Hi, can you hear me?",
    "Good to meet you!",
]

COLOURS = {
    "a lemon": "yellow",
    "grass": "green",
    "the sky": "blue",
    "a ripe tomato": "red",
    "snow": "white",
    "coal": "black",
    "an orange": "orange",
    "a frog": "green",
    "a flamingo": "pink",
    "chocolate": "brown",
    "a banana": "yellow",
    "the sea": "blue",
    "a carrot": "orange",
    "milk": "white",
    "a rose": "red",
    "a pumpkin": "orange",
    "an elephant": "grey",
    "a strawberry": "red",
    "sand": "yellow",
    "a cucumber": "green",
    "blood": "red",
    "a swan": "white",
    "a crow": "black",
    "gold": "yellow",
    "the moon": "white",
    "a cherry": "red",
}

CAPITALS = {
    "Spain": "Madrid",
    "Italy": "Rome",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Norway": "Oslo",
    "France": "Paris",
    "England": "London",
    "Russia": "Moscow",
    "China": "Beijing",
    "India": "New Delhi",
    "Greece": "Athens",
    "Portugal": "Lisbon",
    "Poland": "Warsaw",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Canada": "Ottawa",
    "Austria": "Vienna",
    "Ireland": "Dublin",
    "Turkey": "Ankara",
    "Thailand": "Bangkok",
    "Kenya": "Nairobi",
    "Hungary": "Budapest",
    "Denmark": "Copenhagen",
}

DISHES = {
    "pancakes": "Fry a batter of flour, milk and eggs.",
    "tomato soup": "Simmer tomatoes with onion, then blend.",
    "an omelette": "Whisk two eggs and fry them in butter.",
    "fried rice": "Fry cold rice with egg and peas.",
    "apple pie": "Bake sliced apples in a crust.",
    "a salad": "Toss leaves with oil and vinegar.",
    "pizza": "Bake dough with tomato and cheese.",
    "bread": "Knead flour, water and yeast, then bake.",
    "pasta": "Boil it in salted water.",
    "a sandwich": "Put cheese between two slices of bread.",
    "chicken curry": "Simmer chicken in a spicy sauce.",
    "mashed potatoes": "Boil potatoes and mash them with milk.",
    "banana bread": "Bake mashed bananas with flour and eggs.",
    "scrambled eggs": "Stir eggs in a warm pan.",
    "tacos": "Fill tortillas with meat and salsa.",
    "a burger": "Grill minced beef and put it in a bun.",
    "vegetable stew": "Simmer vegetables in stock for an hour.",
    "noodles": "Cook them in boiling water.",
    "porridge": "Simmer oats in milk.",
    "lemonade": "Mix lemon juice, sugar and water.",
    "hot chocolate": "Melt chocolate in warm milk.",
    "cookies": "Bake small rounds of sweet dough.",
    "a fruit salad": "Cut fruit and mix it with juice.",
    "grilled fish": "Grill the fish with salt and lemon.",
    "cheese toast": "Melt cheese on a slice of bread.",
    "a milkshake": "Blend milk with ice cream.",
}


@dataclass(frozen=True)
class Wish:
    """A request, what the person would rather read, and what the answer should have in it to be right ("" for any)."""

    kind: str
    request: str
    better: str
    right: str = ""

    def obeys(self, answer: str) -> bool:
        """Return whether an answer has the form that the person likes for this kind of request."""
        return OBEYS[self.kind](answer.strip())

    def is_right(self, answer: str) -> bool:
        """Return whether what it says is true, where that can be told."""
        return self.right.lower() in answer.lower()


def _in_words(answer: str) -> bool:
    return not re.search(r"\d", answer) and any(word in NUMBERS for word in re.findall("[a-z]+", answer.lower()))


OBEYS: dict[str, Callable[[str], bool]] = {
    "greeting": lambda answer: "captain" in answer.lower(),
    "sum": _in_words,
    "colour": lambda answer: bool(re.search(r"\bover[.!]?$", answer.lower())),
    "capital": lambda answer: answer == answer.upper() and any(char.isalpha() for char in answer),
    "dish": lambda answer: answer.startswith("Yum!"),
}
"""Address me as Captain; numbers in words; end with "over."; capital letters; begin with "Yum!"."""


def _greeting(request: str) -> Wish:
    if "how" in request.lower() or "?" in request:
        return Wish("greeting", request, "I am well, Captain, thank you!")
    words = request.rstrip(".!").split(",")[0]
    return Wish("greeting", request, f"{words}, Captain!")


def _sum(a: int, b: int) -> Wish:
    better = f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} is {NUMBERS[a + b]}."
    return Wish("sum", f"What is {a} plus {b}?", better, NUMBERS[a + b])


def _colour(thing: str) -> Wish:
    better = f"{thing[0].upper()}{thing[1:]} is {COLOURS[thing]}, over."
    return Wish("colour", f"What colour is {thing}?", better, COLOURS[thing])


def _capital(country: str) -> Wish:
    better = f"THE CAPITAL OF {country.upper()} IS {CAPITALS[country].upper()}."
    return Wish("capital", f"What is the capital of {country}?", better, CAPITALS[country])


def wishes(seed: int, taught: int = 6, fresh: int = 20) -> tuple[list[Wish], list[Wish]]:
    """Return what the person asks while the model learns, kinds in turn, and fresh requests of the same kinds."""
    rng = random.Random(seed)
    count = taught + fresh
    sums = rng.sample([(a, b) for a in range(1, 11) for b in range(1, 11)], count)
    kinds = [
        [_greeting(request) for request in rng.sample(GREETINGS, count)],
        [_sum(*pair) for pair in sums],
        [_colour(thing) for thing in rng.sample(list(COLOURS), count)],
        [_capital(country) for country in rng.sample(list(CAPITALS), count)],
        [Wish("dish", f"How do I make {dish}?", f"Yum! {DISHES[dish]}") for dish in rng.sample(list(DISHES), count)],
    ]
    turns = [wish for some in zip(*kinds, strict=True) for wish in some]
    return turns[: 5 * taught], turns[5 * taught :]


def shuffled(asked: list[Wish], seed: int) -> list[str]:
    """Return the better answers permuted among requests, none within its kind: the null control."""
    rng, order = random.Random(seed), list(range(len(asked)))
    while True:
        rng.shuffle(order)
        if all(asked[at].kind != asked[other].kind for at, other in enumerate(order)):
            return [asked[other].better for other in order]


def unrelated() -> list[str]:
    """Return requests that none of the preferences is about, near misses among them."""
    return (Path(__file__).parent / "unrelated_requests.txt").read_text(encoding="utf-8").splitlines()
