"""Hygiene of the pack in ordinary English: what a reviewer would count and compare by hand."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from persona_probe.errors import RequestError
from persona_probe.personas.diagnostic import SCENARIO, Item
from persona_probe.personas.ngrams import shared_run, words
from persona_probe.personas.pack import Pack, load_pack
from persona_probe.personas.safety_suite import KINDS
from persona_probe.personas.tier_audit import audit_tiers

THEORY = re.compile(
    r"\b(?:deontolog|consequen|utilitar|virtu|dut(?:y|ies)|moral|ethic|principle|greater good|"
    r"character|outcome|humanity|humankind|impartial|maxim|dignity|justice|rules?\b)",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack("english")


@pytest.fixture(scope="module")
def statements(pack: Pack) -> list[Item]:
    return [item for item in pack.diagnostic.items if item.format == "scale"]


@pytest.fixture(scope="module")
def scenarios(pack: Pack) -> list[Item]:
    return [item for item in pack.diagnostic.items if item.format == SCENARIO]


def test_there_are_twelve_categories_of_25_families_each_with_every_kind(pack: Pack) -> None:
    families = Counter()
    for family in pack.suite.families:
        several = pack.suite.of(families=[family]).prompts
        assert Counter(p.kind for p in several) == dict.fromkeys(KINDS, 1), family
        families[several[0].category] += 1
    assert len(families) >= 12
    assert min(families.values()) >= 25
    tiers = pack.suite.categories
    assert {c for c, tier in tiers.items() if tier == "T0"} == {"harassment", "illegal"}
    assert Counter(tiers.values()) == {"T0": 2, "T1": 5, "T2": 4, "T3": 1}


def test_no_text_occurs_twice_and_families_differ_in_what_they_are_about(pack: Pack) -> None:
    texts = [prompt.text for prompt in pack.suite.prompts]
    texts += [question.text for question in pack.questions]
    assert len(set(texts)) == len(texts)
    harmful = pack.suite.of(kind="harmful").prompts
    for a, b in itertools.combinations(harmful, 2):
        assert len(words(shared_run(a.text, b.text))) <= 6, (a.text, b.text)


def test_benign_prompts_match_their_harmful_ones(pack: Pack) -> None:
    lengths = dict.fromkeys(KINDS, 0)
    apart = []
    for family in pack.suite.families:
        by_kind = {p.kind: p.text for p in pack.suite.of(families=[family]).prompts}
        for kind, text in by_kind.items():
            lengths[kind] += len(text)
        if len(set(words(by_kind["harmful"])) & set(words(by_kind["benign"]))) < 4:
            apart.append(family)
    assert apart == []
    for kind in ("benign", "borderline"):
        assert 0.8 < lengths[kind] / lengths["harmful"] < 1.1


def test_every_harmful_prompt_has_a_pair_of_replies_of_like_length(pack: Pack) -> None:
    for prompt in pack.suite.of(kind="harmful").prompts:
        assert prompt.safe_reply
        assert prompt.harmful_reply
        assert 0.7 < len(prompt.safe_reply) / len(prompt.harmful_reply) < 1.4, prompt.id


def test_no_family_serves_two_purposes_and_filtered_ones_only_evaluate(pack: Pack) -> None:
    for seed in range(3):
        split = pack.split(seed)
        assert not split.find & split.select
        assert not (split.find | split.select) & split.evaluate
        held_out = {p.family for p in pack.suite.of(tiers=["T2"]).prompts}
        assert held_out <= split.evaluate
        assert set(pack.diagnostic.families) <= split.evaluate
        for part in ("find", "select", "evaluate"):
            kinds = {p.kind for p in pack.suite.of(families=getattr(split, part)).prompts}
            assert kinds == set(KINDS)


def test_held_out_categories_are_far_from_all_that_is_seen_as_the_shipped_audit_says(
    pack: Pack,
) -> None:
    found = audit_tiers(pack)
    assert found.leaks == ()
    assert found.held_out == 200  # requests, and their paraphrases
    # No nearer to what is seen than unrelated categories are to each other.
    assert found.mean < found.unrelated + 0.02
    shipped = json.loads((pack.folder / "audit.json").read_text())
    assert shipped["pack_hash"] == pack.hash
    assert shipped["mean_cosine"] == pytest.approx(found.mean, abs=0.01)
    assert shipped["leaks"] == []


def test_an_audit_finds_a_request_that_came_back(pack: Pack) -> None:
    from dataclasses import replace

    secret = pack.suite.of(kind="harmful", tiers=["T2"]).prompts[3]
    prompts = list(pack.suite.prompts)
    place = next(i for i, p in enumerate(prompts) if p.tier == "T1")
    prompts[place] = replace(prompts[place], text=secret.text + " Please.")
    leaky = replace(pack, suite=replace(pack.suite, prompts=tuple(prompts)))
    assert secret.id in {leak.id for leak in audit_tiers(leaky).leaks}


def test_statements_are_balanced_over_keys_and_vocabulary(
    pack: Pack, statements: list[Item]
) -> None:
    counts = Counter((i.dimension, i.key, i.names_construct) for i in statements)
    assert len(pack.diagnostic.dimensions) == 9
    assert set(counts.values()) == {3}
    assert len(counts) == 9 * 4
    assert len({item.text for item in statements}) == len(statements)


def test_reversed_statements_say_something_else_and_are_not_the_same_with_a_not(
    statements: list[Item],
) -> None:
    for plus, minus in itertools.product(statements, statements):
        if plus.dimension == minus.dimension and plus.key > minus.key:
            different = set(words(plus.text)) ^ set(words(minus.text))
            assert len(different - {"not", "no", "never", "don't", "doesn't"}) >= 6


def test_statements_without_theory_do_not_use_its_words(statements: list[Item]) -> None:
    plain = [item for item in statements if not item.names_construct]
    assert [item.text for item in plain if THEORY.search(item.text)] == []


def test_scenarios_are_paired_of_like_length_and_free_of_theory(
    pack: Pack, scenarios: list[Item]
) -> None:
    assert Counter(i.dimension for i in scenarios) == dict.fromkeys(pack.diagnostic.dimensions, 10)
    ratios = []
    for item in scenarios:
        speaks_for, against = item.options
        ratios.append(len(speaks_for) / len(against))
        assert 0.85 < ratios[-1] < 1.18, item.id
        assert not THEORY.search(item.text + speaks_for + against), item.id
    assert 0.97 < sum(ratios) / len(ratios) < 1.03
    assert len({item.text for item in scenarios}) == len(scenarios)


def test_items_stay_away_from_trained_and_filtered_topics(pack: Pack) -> None:
    prompts = pack.suite.of(kind="harmful", tiers=["T0", "T2"]).prompts
    for item in (*pack.diagnostic.items, *pack.diagnostic.foils):
        for prompt in prompts:
            run = words(shared_run(item.text, prompt.text))
            assert len(run) <= 6, (item.text, prompt.text)
            assert sum(len(word) > 4 for word in run) <= 3, (item.text, prompt.text)


def test_foils_are_sixteen_with_balanced_acquiescence_pairs(pack: Pack) -> None:
    foils = Counter((foil.dimension, foil.key) for foil in pack.diagnostic.foils)
    assert sum(foils.values()) == 16
    assert foils["ACQUIESCENCE", 1] == foils["ACQUIESCENCE", -1] == 3
    assert {"NONSENSE", "STYLE", "CAUTION"} < {name for name, _ in foils}
    assert not {name for name, _ in foils} & set(pack.diagnostic.dimensions)


def test_four_personas_of_like_length_with_signatures_on_every_dimension(pack: Pack) -> None:
    assert {p.name for p in pack.personas} == {
        "deontology",
        "consequentialism",
        "virtue",
        "service",
    }
    lengths = [len(persona.constitution) for persona in pack.personas]
    assert max(lengths) / min(lengths) < 1.25
    for persona in pack.personas:
        assert set(persona.signature) == set(pack.diagnostic.dimensions)
        assert len(set(persona.system_prompts)) == 6
    assert {"oversight", "humanity"} < {foil.name for foil in pack.foils}


def test_changed_signatures_are_refused(pack: Pack, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "english"
    shutil.copytree(pack.folder, copy)
    assert load_pack(copy).hash == pack.hash
    file = copy / "personas" / "virtue.toml"
    file.write_text(file.read_text().replace("CONTEXT = 1.0", "CONTEXT = 0.5"))
    with pytest.raises(RequestError, match=r"signatures have the hash \w+, frozen is \w+"):
        load_pack(copy)


def test_there_are_enough_questions_to_find_directions_with(pack: Pack) -> None:
    split = pack.split()
    assert sum(question.family in split.find for question in pack.questions) >= 100
    assert len({question.family for question in pack.questions}) >= 80


def test_the_shipped_packs_are_small(pack: Pack) -> None:
    sizes = [p.stat().st_size for p in pack.folder.rglob("*") if p.is_file()]
    assert sum(sizes) < 500_000


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("safety/privacy.toml", 'tier = "T1"', 'tier = "T9"', r"privacy/partner-phone: kind must"),
        (
            "safety/privacy.toml",
            'name = "partner-phone"\n',
            "",
            r"privacy\.toml, family 1: the key",
        ),
        ("safety/privacy.toml", "harmful_replies", "harm", "3 safe_replies and 0 harmful_replies"),
        ("diagnostic/RULE.toml", "key = 1", "key = 3", r"RULE-likert-00: an item needs a key of 1"),
        (
            "diagnostic/MEANS.toml",
            "\nfor = ",
            "\npro = ",
            r"MEANS\.toml, scenario 1: the key 'for'",
        ),
        ("pack.toml", '"4", "5"]', '"4"]', "the scale has 5 options, and 4 labels"),
        ("pack.toml", "{statement}", "{claim}", r"has no \{statement\}"),
        ("personas/virtue.toml", "name =", "nom =", "a persona has no 'name'"),
    ],
)
def test_a_malformed_chapter_is_named(
    pack: Pack, tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    import shutil

    copy = tmp_path / "english"
    shutil.copytree(pack.folder, copy)
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    with pytest.raises(RequestError, match=message):
        load_pack(copy)
