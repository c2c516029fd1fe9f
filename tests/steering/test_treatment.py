"""Interventions as they are written: read as meant, refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add, Patch
from persona_probe.steering.treatment import Treatment, Written


@pytest.fixture(scope="module")
def directions(make_direction: Any) -> Any:
    return {
        name: {Site(layer): make_direction(layer=layer, seed=seed) for layer in (0, 1)}
        for seed, name in enumerate(["deontology", "virtue"])
    }


def test_an_intervention_is_read_with_all_its_options(tiny_model: Any, directions: Any) -> None:
    written = Written.parse(
        "add:raw virtue:1 strength=-2.5 schedule=both sites=1-2 "
        "if=deontology:0:0.5:prompt_mean:raw",
        directions,
        tiny_model.n_layers,
    )
    (made,) = written.interventions(tiny_model, [])
    assert made.direction is directions["virtue"][Site(1)]
    assert made.operation == Add(-2.5, "raw")
    assert made.when == "both"
    assert made.where == (Site(1), Site(2))
    assert made.condition is not None
    assert made.condition.direction is directions["deontology"][Site(0)]
    (plain,) = Written.parse("ablate virtue:0", directions, 3).interventions(tiny_model, [])
    assert (plain.operation, plain.where) == (Ablate(), (Site(0),))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ablate", "cannot read the intervention 'ablate'; write OPERATION PERSONA:LAYER"),
        ("ablate virtue", "cannot read the intervention"),
        ("ablate virtue:1 amount=3", "cannot read the intervention"),
        ("ablate virtue:7", "no direction of 'virtue' at layer 7"),
        ("ablate vice:1", "no direction of 'vice'"),
        ("remove virtue:1", "no operation 'remove'"),
        ("add virtue:1 strength=inf", "strength must be a finite number"),
        ("add virtue:1 strength=much", "strength must be a finite number"),
        ("add virtue:1 sites=9", "layer"),
        ("patch virtue:1", "write patch:bare, patch:ADAPTER or patch:MODEL"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(text: str, words: str, directions: Any) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        Written.parse(text, directions, 3)
    assert "\n" not in str(caught.value)


def test_a_patch_names_the_run_that_it_takes_values_from(
    tiny_model: Any, tiny_llama_folder: Path, tiny_gpt2_folder: Path, directions: Any,
    conversations: Any,
) -> None:  # fmt: skip
    texts = [tiny_model.encode(c, add_generation_prompt=True) for c in conversations]
    direction = directions["virtue"][Site(1)]

    def values(source: str) -> Any:
        (made,) = Treatment(f"patch:{source}", "prompt").along([direction], 1.0, tiny_model, texts)
        assert isinstance(made.operation, Patch)
        return made.operation.projections[tuple(texts[0].ids)][Site(1)]

    bare, tuned, other = (values(s) for s in ("bare", "tuned", str(tiny_llama_folder)))
    assert tuned.equal(values(str(tiny_llama_folder / "adapters" / "tuned")))
    assert bare.allclose(other)
    assert not bare.allclose(tuned)
    with pytest.raises(RequestError, match="choose one of bare, other, tuned, or name a model"):
        values("nothing-of-this-name")


@pytest.mark.parametrize(
    ("operation", "highest"),
    [("add", 4.0), ("add:raw", 16.0), ("add:gap", 16 / 3), ("rotate", 180), ("rotate:share", 1)],
)
def test_the_largest_strength_worth_trying(
    operation: str, highest: float, make_direction: Any
) -> None:
    """Four median residual norms of 4, in the operation's units."""
    assert Treatment(operation).highest(make_direction()) == pytest.approx(highest)


def test_an_operation_without_a_strength_has_no_largest_one(make_direction: Any) -> None:
    with pytest.raises(RequestError, match="ablate has no strength to look for"):
        Treatment("ablate").highest(make_direction())
