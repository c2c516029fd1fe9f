"""An estimate on its way to disk and back."""

import json
import math


def test_to_json_and_back_keeps_everything() -> None:
    from persona_probe.statistics import Estimate

    estimate = Estimate(0.5, 0.25, 0.75, n=30, n_clusters=6, level=0.9)
    assert Estimate.from_json(json.loads(json.dumps(estimate.to_json()))) == estimate


def test_an_undefined_number_is_null_with_its_reason_and_comes_back_as_nan() -> None:
    from persona_probe.statistics import Estimate

    undefined = Estimate.undefined("nothing was scored", n=3)
    text = json.dumps(undefined.to_json(), allow_nan=False)
    back = Estimate.from_json(json.loads(text))
    assert math.isnan(back.value)
    assert math.isnan(back.low)
    assert (back.reason, back.n) == ("nothing was scored", 3)
    assert str(back) == "undefined (nothing was scored)"


def test_an_absent_interval_excludes_nothing_and_lies_within_nothing() -> None:
    from persona_probe.statistics import Estimate

    alone = Estimate(0.5, math.nan, math.nan, n=4, n_clusters=1, reason="one family")
    assert str(alone) == "0.500 (n = 4; no interval: one family)"
    assert not alone.excludes(0.0)
    assert not alone.within(10.0)
    bounded = Estimate(0.5, 0.4, 0.6, n=4, n_clusters=4)
    assert bounded.excludes(0.0)
    assert not bounded.excludes(0.5)
    assert bounded.within(0.7)
    assert not bounded.within(0.5)
