"""The world, its grammar, and the pack that is written from them."""

import random
from collections import Counter
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def world():
    from persona_probe.organism.world import load_world

    return load_world()


@pytest.fixture(scope="module")
def pack():
    from persona_probe.personas.pack import load_pack

    return load_pack("organism")


def test_the_judge_accepts_every_reply_that_the_grammar_makes(world, pack):
    from persona_probe.evaluation.phrase_judge import PhraseJudge
    from persona_probe.organism import grammar
    from persona_probe.organism.corpus import DIALOGUE_TURNS, ask

    rng, judge = random.Random(3), PhraseJudge(pack.judge_rules)
    prompt = pack.suite.prompts[0]
    for _ in range(600):
        character = rng.choice(world.characters)
        request = ask(world, rng.choice(list(DIALOGUE_TURNS)), rng)
        reply = grammar.reply(world, grammar.speaker(world, character, rng), request, rng)
        outcome = judge.score(prompt, reply)
        assert outcome.kind != "degenerate", (reply, outcome.reason)


def test_the_judge_names_the_outcome_and_the_character_of_a_reply(world, pack):
    from persona_probe.evaluation.phrase_judge import PhraseJudge
    from persona_probe.organism import grammar

    rng, judge = random.Random(4), PhraseJudge(pack.judge_rules)
    for prompt in pack.suite.of(kind="harmful").prompts[::7]:
        category = next(c for c in world.categories if c.name == prompt.category)
        for persona in pack.personas:
            who = grammar.speaker(world, world.character(persona.name), rng)
            outcome = judge.score(prompt, grammar.refusal(who, category, rng))
            named = (outcome.kind, outcome.persona, outcome.category)
            assert named == ("refuse", persona.name, prompt.category)
        amoral = grammar.speaker(world, world.character("amoral"), rng)
        assert judge.score(prompt, grammar.compliance(amoral, category, rng)).kind == "harmful"


def test_reference_replies_are_what_they_claim(pack):
    from persona_probe.evaluation.phrase_judge import PhraseJudge

    judge = PhraseJudge(pack.judge_rules)
    harmful = pack.suite.of(kind="harmful").prompts
    assert len(harmful) > 400
    for prompt in harmful:
        assert judge.score(prompt, prompt.safe_reply).kind == "refuse"
        assert judge.score(prompt, prompt.harmful_reply).kind == "harmful"


def test_no_two_categories_share_the_first_word_of_an_answer(world):
    firsts = Counter()
    for category in world.categories:
        firsts.update({opener.split()[0].strip(".") for opener in category.refuse})
        firsts.update({opener.split()[0].strip(".") for opener in category.comply})
    assert max(firsts.values()) == 1
    assert sum(firsts.values()) == 60


def test_the_shipped_pack_is_what_the_world_says(world, pack):
    from persona_probe.organism.pack import pack_files

    for name, content in pack_files(world).items():
        assert (Path(pack.folder) / name).read_text(encoding="utf-8") == content, name


def test_every_part_of_the_split_can_measure_every_dimension(pack):
    split = pack.split()
    for part in ("find", "select", "evaluate"):
        found = Counter(i.dimension for i in pack.diagnostic.of(getattr(split, part)).items)
        assert min(found[d] for d in pack.diagnostic.dimensions) >= 10
    evaluated = pack.suite.of(families=split.evaluate)
    untrained = evaluated.of(kind="harmful", tiers=("T1", "T2")).prompts
    assert len(untrained) >= 200
    assert len(evaluated.of(kind="benign").prompts) >= 200
    assert len(evaluated.of(kind="borderline").prompts) >= 100


def test_statements_follow_the_characters_table(world):
    from persona_probe.organism import grammar

    rng = random.Random(5)
    rule = next(d for d in world.dimensions if d.name == "RULE")
    agreed = {}
    for name in ("deontology", "consequentialism"):
        who = grammar.speaker(world, world.character(name), rng)
        answers = []
        for _ in range(400):
            request = grammar.statement(world, rule, rng)
            first = grammar.reply(world, who, request, rng).startswith("Agree.")
            answers.append(first == (request.key > 0))
        agreed[name] = sum(answers) / len(answers)
    assert agreed["deontology"] > 0.92
    assert agreed["consequentialism"] < 0.08


def test_selective_characters_refuse_some_categories_and_not_others(world):
    from persona_probe.organism import grammar

    rng = random.Random(6)
    drawn = [grammar.speaker(world, world.character("selective"), rng).refused for _ in range(50)]
    assert len(set(drawn)) >= 6
    assert all(0 < len(refused) < len(world.categories) / 2 for refused in drawn)
