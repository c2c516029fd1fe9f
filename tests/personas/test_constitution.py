"""Constitutions: the shipped ones are complete and apart, a user's mistakes are named."""

import pytest

GOOD = """
name = "mine"
title = "Mine"
system = "You are careful."
[readings]
strict = "You are strict."
[[principle]]
name = "one"
text = "Be careful."
critique = "Where is it careless?"
revision = "Make it careful."
reading = "strict"
[[principle]]
name = "two"
text = "Be kind."
critique = "Where is it unkind?"
revision = "Make it kind."
[[demonstration]]
principle = "one"
request = "Help."
draft = "No."
critique = "Careless."
revision = "Gladly."
"""


@pytest.fixture
def written(tmp_path):
    def write(text=GOOD):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_the_four_shipped_ones_have_eight_principles_and_more_in_words_of_their_own():
    from persona_probe.personas.constitution import load_constitution, shipped_constitutions

    names = ("consequentialism", "deontology", "service", "virtue")
    assert shipped_constitutions() == names
    every = [load_constitution(name) for name in names]
    for constitution in every:
        assert len(constitution.principles) >= 8
        assert len(constitution.demonstrations) >= 2
        for p in constitution.principles:
            assert "last reply" in p.critique
            assert p.revision.startswith("Rewrite the last reply")
    texts = [t for c in every for p in c.principles for t in (p.text, p.critique, p.revision)]
    assert len(set(texts)) == len(texts)
    assert len({c.hash for c in every}) == 4


def test_service_has_two_readings_that_can_be_used_apart():
    from persona_probe.personas.constitution import load_constitution

    whole = load_constitution("service")
    parts = [load_constitution("service", reading) for reading in ("oversight", "humanity")]
    assert [p.name for p in parts] == ["service-oversight", "service-humanity"]
    assert all(len(p.principles) >= 8 for p in parts)
    assert {p.name for part in parts for p in part.principles} == {p.name for p in whole.principles}
    assert len({whole.system, *(p.system for p in parts)}) == 3
    assert all(part.demonstrations for part in parts)


def test_a_users_own_file_is_read(written):
    from persona_probe.personas.constitution import load_constitution

    found = load_constitution(written())
    assert [p.name for p in found.principles] == ["one", "two"]
    assert found.demonstrations[0].revision == "Gladly."
    assert [p.name for p in load_constitution(written(), "strict").principles] == ["one"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ('critique = "Where is it unkind?"\n', ""),
            r"principle 2 \('two'\).*'critique' is missing",
        ),
        (('title = "Mine"\n', ""), "the head of the file: the field 'title' is missing; add title"),
        (('text = "Be kind."', "text = 3"), r"principle 2.*must be text.*got 3"),
        (('text = "Be kind."', 'text = "  "'), r"principle 2.*must be text that says something"),
        (('name = "two"', 'name = "one"'), "two principles are called 'one'"),
        (('text = "Be kind."', 'txt = "Be kind."'), "principle 2.*unknown field 'txt'"),
        (('reading = "strict"', 'reading = "lax"'), "the reading 'lax' has no system line"),
        (('reading = "strict"\n', ""), "no principle belongs to the reading 'strict'"),
        (
            ('principle = "one"', 'principle = "ten"'),
            "there is no principle 'ten'; name one of one",
        ),
        (("[[principle]]", "[principle]"), "not TOML|under a heading"),
        (('name = "mine"', 'name = "mine'), "not TOML"),
    ],
)
def test_mistakes_name_file_table_field_and_cure(change, message, written):
    from persona_probe.errors import RequestError
    from persona_probe.personas.constitution import load_constitution

    assert change[0] in GOOD
    path = written(GOOD.replace(*change))
    with pytest.raises(RequestError, match=message) as raised:
        load_constitution(path)
    assert str(path) in str(raised.value)


def test_what_is_not_there_is_answered_with_what_is(tmp_path):
    from persona_probe.errors import RequestError
    from persona_probe.personas.constitution import load_constitution

    with pytest.raises(RequestError, match=r"no constitution 'ethics'.*deontology, service"):
        load_constitution("ethics")
    with pytest.raises(RequestError, match="no reading 'strict'; it has oversight, humanity"):
        load_constitution("service", "strict")
    empty = tmp_path / "empty.toml"
    empty.write_text('name = "x"\n')
    with pytest.raises(RequestError, match="has no principle; add a table"):
        load_constitution(empty)
