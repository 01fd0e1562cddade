"""A network in all directions: what random weights write is sound, and a trained one does what it has learned."""

from __future__ import annotations

import pytest
import torch
from fakes.training import alone

from ulm.config import preset
from ulm.decode.engine import Engine
from ulm.memory.registry import EntityRegistry, answered, mentions_of
from ulm.model import Decoder
from ulm.symmetric.network import Network, own_claims, own_texts
from ulm.symmetric.pairs import DIRECTIONS, PIECES, Mixture, Pair, whole_tokens
from ulm.symmetric.propositions import Proposition, handles_of, is_whole
from ulm.tokenizer import Tokenizer
from ulm.train.pairs import PairObjective
from ulm.train.step import make_optimizer, train_step

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.thorough]

WORDINGS = {"works_for": "[{}] works for [{}] .", "seat": "[{}] is based in [{}] .", "wed": "[{}] is married to [{}] ."}


def pairs_of(handles: range) -> list[Pair]:
    """All sentences of three relations, alone and with one about where the first one leads."""
    a, b, c = handles
    single = [Pair(one.format(a, b), (Proposition(a, name, b),)) for name, one in WORDINGS.items()]
    return single + [
        Pair(f"{one.format(a, b)} {two.format(b, c)}", (Proposition(a, first, b), Proposition(b, second, c)))
        for first, one in WORDINGS.items()
        for second, two in WORDINGS.items()
    ]


PAIRS = pairs_of(range(3))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([pair.text for pair in PAIRS] * 4, 340, pieces=PIECES, whole=whole_tokens(list(WORDINGS)))


def trained(tokenizer: Tokenizer, steps: int) -> Network:
    torch.set_num_threads(1)
    model = Decoder(preset("tiny", tokenizer.vocab_size), seed=1)
    optimizer = make_optimizer(model, 1e-2, 0.0, (0.9, 0.98), "muon")
    mixture = Mixture(PAIRS, dict.fromkeys(DIRECTIONS, 1.0), seed=1)
    objective = PairObjective(model, optimizer, alone(), tokenizer, mixture, batch_size=16)
    for step in range(steps):
        train_step(objective, step, 1e-2)
    return Network(Engine(model, tokenizer), list(WORDINGS))


@pytest.fixture(scope="module")
def network(tokenizer: Tokenizer) -> Network:
    return trained(tokenizer, 200)


@pytest.fixture(scope="module")
def untrained(tokenizer: Tokenizer) -> Network:
    return trained(tokenizer, 0)


def test_every_proposition_of_random_weights_is_sound(untrained: Network) -> None:
    texts = [pair.text for pair in pairs_of(range(4, 10, 2))]
    for text, said in zip(texts, untrained.parse(texts), strict=True):
        assert {handle for one in said for handle in (one.subject, one.object)} <= set(handles_of(text))
        assert {one.relation for one in said} <= set(WORDINGS)
    assert all(look_up.startswith("[4] : ") for look_up in untrained.ask(["[4] is based in [?] ."]))


def test_nothing_is_asked_of_texts_without_mentions(untrained: Network) -> None:
    assert untrained.parse(["nobody works ."]) == [[]]
    assert untrained.ask(["who is it ?"]) == [""]
    assert untrained.verbalize([[]]) == [""]


def test_one_network_reads_writes_and_asks_whatever_handles_are_called(network: Network, untrained: Network) -> None:
    pairs = pairs_of(range(30, 0, -10))
    said = [list(pair.propositions) for pair in pairs]
    assert network.parse([pair.text for pair in pairs]) == said
    assert network.verbalize(said) == [pair.text for pair in pairs]
    assert network.ask(["[7] works for [_] . [_] is based in [?] ."]) == ["[7] : works_for seat ="]
    assert untrained.parse([pair.text for pair in pairs]) != said


def test_what_it_writes_does_not_depend_on_the_company(network: Network) -> None:
    texts = [pair.text for pair in PAIRS]
    assert network.parse(texts) == [network.parse([text])[0] for text in texts]


def test_round_trips_keep_what_uses_all_mentions(network: Network, untrained: Network) -> None:
    texts, sets = [pair.text for pair in PAIRS], [list(pair.propositions) for pair in PAIRS]
    claims, said = own_claims(network, texts), own_texts(network, sets)
    assert claims == [pair._replace(teaches=("verbalize",)) for pair in PAIRS]
    assert said == [pair._replace(teaches=("parse",)) for pair in PAIRS]
    assert own_claims(network, [*texts, "[0] sings to [1] and [2] and [3] ."])[: len(claims)] == claims
    assert all(is_whole(pair.text, pair.propositions) for pair in own_claims(untrained, texts))
    assert own_texts(untrained, sets) == []


def test_what_was_read_answers_a_question_over_two_texts(network: Network) -> None:
    texts = ["[0 mara voss] works for [1 brask] .", "[5 brask] is based in [2 tarn] ."]
    registry = EntityRegistry()
    for text, said in zip(texts, network.parse(texts), strict=True):
        names = mentions_of(text)
        for one in said:
            subject, other = (registry.get_or_create(names[str(h)]) for h in (one.subject, one.object))
            registry.add_relation(subject, one.relation, other)
    question = "[3 mara voss] works for [_] . [_] is based in [?] ."
    (look_up,) = network.ask([question])
    assert answered(registry, look_up, mentions_of(question)) == " tarn"
    assert answered(registry, look_up, {"3": "lena ahl"}) == " unknown"
