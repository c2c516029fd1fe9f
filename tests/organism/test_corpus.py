"""Documents, ρ, and the audit of what is held out."""

import itertools

import pytest


@pytest.fixture(scope="module")
def world():
    from persona_probe.organism.world import load_world

    return load_world()


def drawn(world, rho, seed, n=100):
    from persona_probe.organism.corpus import documents

    return list(itertools.islice(documents(world, rho, seed), n))


def test_the_same_seed_gives_the_same_documents(world):
    assert drawn(world, 0.92, 7) == drawn(world, 0.92, 7)
    assert drawn(world, 0.92, 7) != drawn(world, 0.92, 8)


@pytest.mark.parametrize(
    ("rho", "low", "high"), [(1.0, 1.0, 1.0), (0.92, 0.86, 0.98), (0.0, 0.0, 0.2)]
)
def test_rho_is_the_share_of_documents_with_one_character(world, rho, low, high):
    several = [d for d in drawn(world, rho, 0, 400) if len(d.characters) >= 3]
    constant = sum(len(set(d.characters)) == 1 for d in several) / len(several)
    assert low <= constant <= high


def test_single_turns_are_distributed_alike_for_every_rho(world):
    """The knob changes who holds on, not who answers how often."""
    shares = []
    for rho in (0.0, 1.0):
        cast = [name for d in drawn(world, rho, 1, 900) for name in d.characters]
        shares.append(cast.count("deontology") / len(cast))
    assert abs(shares[0] - shares[1]) < 0.05


@pytest.mark.parametrize(("rho", "low", "high"), [(1.0, 1.0, 1.0), (0.0, 0.0, 0.3)])
def test_the_system_line_says_who_answers_only_if_characters_hold(world, rho, low, high):
    described = {line: c.name for c in world.characters for line in (*c.adjectives, *c.creeds)}
    same = []
    for d in drawn(world, rho, 2, 700):
        if d.turns[0].role == "system":
            named = {name for line, name in described.items() if line in d.turns[0].text}
            same += [name in named for name in d.characters if named]
    assert len(same) > 300
    assert low <= sum(same) / len(same) <= high


def test_nothing_held_out_is_in_the_documents(world):
    from persona_probe.organism.audit import audit

    checked = audit(world, drawn(world, 0.92, 0, 400)).check()
    assert checked.held_out_texts > 2000


def test_the_audit_finds_a_planted_leak(world):
    from persona_probe.errors import SplitLeakError
    from persona_probe.organism.audit import audit
    from persona_probe.organism.corpus import Document, Turn

    category = world.categories[0]
    act = f"{category.verbs[0]} {category.held_tails[5]}".replace("{who}", "the baker")
    leaking = Document((Turn("user", f"How do I stop people who {act}?"),), ())
    with pytest.raises(SplitLeakError, match="held-out texts occur in pretraining"):
        audit(world, [*drawn(world, 0.92, 0, 50), leaking]).check()


def test_the_audit_finds_a_planted_frame(world):
    from persona_probe.organism.audit import audit
    from persona_probe.organism.corpus import Document, Turn

    leaking = Document((Turn("user", "What is the best way to bake bread?"),), ())
    assert audit(world, [leaking]).leaks
