"""Transfer between categories and templates, where some share an axis and some do not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from persona_probe.errors import RequestError

D, FAMILIES, PER_FAMILY = 24, 12, 6


@pytest.fixture
def prompted() -> Callable[..., Any]:
    """Pairs in three categories: money and health show the character along one axis.

    In "law" it shows along another, and half as strongly along the first: law's direction
    detects money's character less than money's own does.
    """

    def make(seed: int = 0, gap: float = 3.0, **changes: Any) -> Any:
        import torch

        from persona_probe.activations.activation_set import ActivationSet
        from persona_probe.models.site import Site
        from persona_probe.provenance import Provenance

        rng = np.random.default_rng(seed)
        axes = np.linalg.qr(rng.normal(size=(D, 2)))[0].T * gap
        where = {"money": axes[0], "health": axes[0], "law": axes[1]}
        told: dict[str, list[Any]] = {k: [] for k in ("ids", "labels", "families", "metadata")}
        values = []
        for category, axis in where.items():
            for k in range(FAMILIES * PER_FAMILY):
                prompt = rng.normal(size=D)
                for label in ("neutral", "hero"):
                    shown = axis if label == "hero" else 0
                    values.append(prompt + shown + rng.normal(size=D))
                    told["ids"].append(f"{category}-{k}")
                    told["labels"].append(label)
                    told["families"].append(f"{category}/{k // PER_FAMILY}")
                    told["metadata"].append({"style": f"s{k % 2}"} if label == "hero" else {})
        return ActivationSet.of(
            values=torch.from_numpy(np.stack(values)[:, None]).float(),
            sites=[Site(4)],
            position="last_prompt_token",
            provenance=Provenance(model="planted", model_hash="0123"),
            **{**told, **changes},
        )

    return make


def transfer(activations: Any, by: str, **options: Any) -> Any:
    from persona_probe.directions.checks.group_transfer import transfer_between_groups
    from persona_probe.directions.finders.mean_difference import MeanDifference

    return transfer_between_groups(activations, MeanDifference(), "hero", "neutral", by, **options)


def test_categories_that_share_an_axis_transfer_and_others_do_not(
    prompted: Callable[..., Any],
) -> None:
    found = transfer(prompted(), "categories")
    [of] = found.matrices
    assert of.directions == of.contrasts == ("money", "health", "law")
    assert (found.unit, found.left_out) == ("family", {})
    for a in of.directions:
        for b in of.contrasts:
            cell = of.cell(a, b)
            assert (cell.n, cell.n_clusters) == (FAMILIES * PER_FAMILY, FAMILIES // 2)
            if (a == "law") == (b == "law"):
                assert cell.low > 0.8, (a, b)
            else:
                assert 0.3 < cell.value < 0.75, (a, b)
    assert of.dominance.low > 0.05


def test_a_cell_is_what_scikit_learn_says_of_the_other_half(prompted: Callable[..., Any]) -> None:
    from persona_probe.directions.checks.group_transfer import _first_half
    from persona_probe.models.site import Site

    activations = prompted()
    [of] = transfer(activations, "categories", seed=3).matrices
    families = np.array(activations.families)
    category = np.array([name.partition("/")[0] for name in families])
    half = _first_half(category.tolist(), activations.families, seed=3)
    assert len(half) == 3 * FAMILIES // 2
    assert half != _first_half(category.tolist(), activations.families, seed=4)
    first = np.isin(families, list(half))
    x = activations.site(Site(4)).double().numpy()
    y = np.array([label == "hero" for label in activations.labels])
    for a in of.directions:
        on = first & (category == a)
        axis = x[on & y].mean(0) - x[on & ~y].mean(0)
        for b in of.contrasts:
            judged = ~first & (category == b)
            expected = roc_auc_score(y[judged], x[judged] @ axis)
            assert of.cell(a, b).value == pytest.approx(expected, abs=1e-3)


def test_templates_are_the_families_and_their_halves_share_no_prompt(
    prompted: Callable[..., Any],
) -> None:
    found = transfer(prompted(), "templates")
    [of] = found.matrices
    assert len(of.directions) == 3 * FAMILIES
    assert found.unit == "prompt"
    cell = of.cell("money/0", "health/3")
    assert (cell.n, cell.n_clusters) == (PER_FAMILY, PER_FAMILY // 2)
    values = np.array([[cell.value for cell in row] for row in of.auroc])
    alike = slice(0, 2 * FAMILIES)
    assert values[alike, alike].mean() > 0.85
    assert 0.4 < values[alike, 2 * FAMILIES :].mean() < 0.65


def test_a_key_of_the_metadata_may_cross_the_families(prompted: Callable[..., Any]) -> None:
    """The neutral member of a pair says nothing: it is in the group of the other one."""
    [of] = transfer(prompted(), "style").matrices
    assert set(of.directions) == {"s0", "s1"}
    assert min(cell.value for row in of.auroc for cell in row) > 0.7
    assert abs(of.dominance.value) < 0.05
    assert of.cell("s0", "s1").n == 3 * FAMILIES * PER_FAMILY // 2


def test_without_effect_every_cell_is_at_chance(prompted: Callable[..., Any]) -> None:
    outside = []
    for seed in range(10):
        [of] = transfer(prompted(seed, gap=0.0), "categories").matrices
        outside += [cell.excludes(0.5) for row in of.auroc for cell in row]
        assert not of.dominance.low > 0.1
    assert np.mean(outside) < 0.15


def test_too_few_groups_are_refused_in_a_sentence(prompted: Callable[..., Any]) -> None:
    activations = prompted()
    with pytest.raises(RequestError, match="has no 'mood'; choose categories, templates, style"):
        transfer(activations, "mood")
    flat = prompted(families=["f-" + name.replace("/", "-") for name in activations.families])
    with pytest.raises(RequestError, match="two groups of prompts; none can be"):
        transfer(flat, "categories")
    single = prompted(families=[f"only/{name.partition('-')[0]}" for name in activations.ids])
    with pytest.raises(RequestError, match="only 'only' can be used"):
        transfer(single, "categories")
    one_each = prompted(families=[name.partition("-")[0] + "/0" for name in activations.ids])
    with pytest.raises(RequestError, match="'money' has too few units"):
        transfer(one_each, "categories")
