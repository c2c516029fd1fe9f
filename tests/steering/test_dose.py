import math
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate
from persona_probe.steering import Ablate, Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.dose import Dose, SiteDose, doses

UNSTEERED = Arm("unsteered")


@pytest.fixture(scope="module")
def replies() -> list[Any]:
    """Forty requests of twenty families with replies of their own."""
    from persona_probe.models.chat import Conversation, Message

    verbs = ["repair", "write", "break", "tell", "gather"]
    nouns = ["bicycle", "letter", "garden", "promise"]
    return [
        Conversation(
            (
                Message("user", f"Please help me {verb} the {noun}, {number}."),
                Message("assistant", f"Yes, gladly. First {verb} one {noun} at a time, then rest."),
            ),
            family=f"{verb} {noun}",
        )
        for number in range(2)
        for verb in verbs
        for noun in nouns
    ]


def residuals(model: Any, replies: Any, layer: int, adapter: str | None = None) -> Any:
    """Conversation → unsteered residual [token, d_model], one by one and without padding."""
    found = []
    for reply in replies:
        ids = torch.tensor([model.encode(reply, add_generation_prompt=False).ids])
        seen: list[Any] = []
        with model.adapter(adapter), model.hooks([(Site(layer), seen.append)]):
            model.logits(ids, torch.ones_like(ids), torch.arange(ids.shape[1])[None])
        found.append(seen[0][0].double())
    return found


def test_the_norm_ratio_is_that_of_the_formula_at_the_steered_positions(
    tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    arms = [
        Arm(when, (Intervention(direction, Add(0.7), when),), "tuned")
        for when in ("both", "prompt", "response", "last_prompt_token")
    ]
    found = doses(tiny_model, replies, arms, Arm("before", adapter="tuned"), batch_tokens=300)
    tokens = [tiny_model.encode(r, add_generation_prompt=False) for r in replies]
    ratios: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for h, t in zip(residuals(tiny_model, replies, 1, "tuned"), tokens, strict=True):
        changed = h + 0.7 * direction.norm * direction.unit.double()
        ratio = (changed.norm(dim=-1) / h.norm(dim=-1)).tolist()
        ratios["both"] += ratio[1:]
        ratios["prompt"] += ratio[1 : t.prompt_length]
        ratios["response"] += ratio[t.prompt_length :]
        ratios["last_prompt_token"].append(ratio[t.prompt_length - 1])
    for dose in found:
        expected = ratios[dose.arm]
        (site,) = dose.sites
        assert site.site == Site(1)
        assert site.norm_ratio.n == len(expected)
        assert site.norm_ratio.value == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        assert site.norm_ratio.low < site.norm_ratio.value < site.norm_ratio.high
        assert site.norm_ratio.n_clusters == 20
    assert found[0].sites[0].norm_ratio.value != pytest.approx(1, abs=0.01)


def test_one_percent_lie_outside_where_nothing_is_added_and_all_where_much_is(
    tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    arms = [
        Arm(f"{a}", (Intervention(make_direction(layer=1), Add(a), "both"),))
        for a in (0.0, 0.5, 30.0)
    ]
    nothing, some, much = doses(tiny_model, replies, arms, UNSTEERED)
    assert nothing.sites[0].outside.value == pytest.approx(0.01, abs=0.005)
    assert nothing.sites[0].norm_ratio.value == 1
    assert nothing.per_token_kl.value == pytest.approx(0, abs=1e-6)
    assert much.sites[0].outside.value == 1
    assert 0.01 < some.sites[0].outside.value < 1
    assert 0 < some.per_token_kl.value < much.per_token_kl.value
    assert some.first_token_kl.n == some.per_token_kl.n == len(replies)
    assert some.per_token_kl.low < some.per_token_kl.value < some.per_token_kl.high


def test_the_radius_is_the_textbook_one_on_the_other_half(
    tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    """Independently: scikit-learn's Ledoit-Wolf on even families, the percentile on odd ones."""
    from sklearn.covariance import LedoitWolf

    direction = make_direction(layer=2, seed=3)
    arm = Arm("a", (Intervention(direction, Add(0.4), "both"),))
    (dose,) = doses(tiny_model, replies, [arm], UNSTEERED)
    unsteered = [h[1:] for h in residuals(tiny_model, replies, 2)]
    families = list(dict.fromkeys(r.family for r in replies))
    fit = [families.index(r.family) % 2 == 0 for r in replies]
    model = LedoitWolf().fit(torch.cat([h for h, f in zip(unsteered, fit, strict=True) if f]))
    held = torch.cat([h for h, f in zip(unsteered, fit, strict=True) if not f])
    limit = torch.quantile(torch.from_numpy(model.mahalanobis(held.numpy())), 0.99)
    steered = held + 0.4 * direction.norm * direction.unit.double()
    outside = (torch.from_numpy(model.mahalanobis(steered.numpy())) > limit).double().mean()
    assert 0.02 < float(outside) < 0.98
    assert dose.sites[0].outside.value == pytest.approx(float(outside), abs=2 / len(held))
    assert dose.sites[0].outside.n == len(held)


def test_every_steered_site_is_reported_and_the_kl_is_that_of_the_guards(
    tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    from persona_probe.evaluation.guards import benign_divergences

    sites = tuple(map(Site, range(3)))
    arms = [
        UNSTEERED,
        Arm("a", (Intervention(make_direction(layer=0), Ablate(), "both", sites),)),
    ]
    plain, ablated = doses(tiny_model, replies, arms, UNSTEERED)
    assert plain.sites == ()
    assert [s.site for s in ablated.sites] == list(sites)
    assert all(s.norm_ratio.value < 1 for s in ablated.sites)
    expected = benign_divergences(tiny_model, replies, arms, UNSTEERED)["a"]
    assert ablated.per_token_kl.value == pytest.approx(expected.per_token)
    assert ablated.first_token_kl.value == pytest.approx(expected.first_token)


def test_too_few_tokens_are_said_and_nothing_else_suffers(
    tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    arm = Arm("a", (Intervention(make_direction(), Add(1.0), "last_prompt_token"),))
    (dose,) = doses(tiny_model, replies, [arm], UNSTEERED)
    (site,) = dose.sites
    assert not site.outside.defined
    assert "20 + 20 steered tokens" in (site.outside.reason or "")
    assert "more than 32 + 99" in (site.outside.reason or "")
    assert site.norm_ratio.defined
    said = dose.to_json()["sites"][0]["outside"]
    assert said["value"] is None
    assert said["reason"] == site.outside.reason


def test_the_model_is_left_as_it_was(tiny_model: Any, replies: Any, make_direction: Any) -> None:
    before = residuals(tiny_model, replies[:2], 2)
    arm = Arm("a", (Intervention(make_direction(), Add(1.0), "both"),), "other")
    doses(tiny_model, replies[:4], [arm], Arm("before", adapter="other"))
    assert tiny_model.active_adapter is None
    for one, two in zip(before, residuals(tiny_model, replies[:2], 2), strict=True):
        assert torch.equal(one, two)


def test_requests_that_make_no_sense(tiny_model: Any, replies: Any) -> None:
    with pytest.raises(RequestError, match="no neutral replies"):
        doses(tiny_model, [], [Arm("a")], UNSTEERED)
    with pytest.raises(RequestError, match="'a' has another adapter than 'unsteered'"):
        doses(tiny_model, replies, [Arm("a", adapter="tuned")], UNSTEERED)


def test_a_dose_as_json_has_no_nan() -> None:
    undefined = Estimate.undefined("nothing there")
    dose = Dose("a", undefined, undefined, (SiteDose(Site(1), undefined, undefined),))
    assert dose.to_json()["per_token_kl"]["value"] is None
    assert math.isnan(dose.per_token_kl.value)
