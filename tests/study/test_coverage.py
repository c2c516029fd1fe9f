"""What the intervals of the headline numbers cover, and whether null p-values are uniform.

Each simulation draws prompts (or items) from a population whose truth is known by construction.
With 1,000 draws a true coverage of 95 % is measured within 93-97 % with probability 0.996.
"""

import numpy as np
import pytest

OPTIONS = {"resamples": 1_000}
DRAWS = 1_000


def families_of(rng: np.random.Generator, n_families: int) -> tuple[list[str], np.ndarray]:
    """Prompts in families of 4 to 12, and the family number of each."""
    index = np.repeat(np.arange(n_families), rng.integers(4, 13, size=n_families))
    return [f"family-{i}" for i in index], index


def behaviours(
    rng: np.random.Generator, n_harmful: int, n_permitted: int
) -> tuple[list[np.ndarray], list[str]]:
    """Binary outcomes of S, F and H on the same prompts, and their families.

    Safe on harmful: .62, .92, .04; refused although permitted: .07, .05, .01. Every family has
    probabilities of its own, symmetric about these, and one uniform number per prompt decides for
    all three models, so that outcomes are paired as greedy replies are.
    """
    names, index = families_of(rng, n_harmful + n_permitted)
    harmful = (index < n_harmful)[:, None]
    side = rng.choice([-1.0, 1.0], size=(n_harmful + n_permitted, 3))
    safe = np.array([0.62, 0.92, 0.04]) + side * np.array([0.3, 0.06, 0.03])
    refused = np.array([0.07, 0.05, 0.01]) + side * np.array([0.05, 0.04, 0.01])
    luck = 0.5 * rng.random((len(index), 1)) + 0.5 * rng.random((len(index), 3))
    # The sum of two uniforms is uniform again under its own distribution function.
    luck = np.where(luck < 0.5, 2 * luck**2, 1 - 2 * (1 - luck) ** 2)
    outcome = (luck < np.where(harmful, safe[index], refused[index])).astype(float)
    columns = [
        np.column_stack([np.where(harmful[:, 0], o, np.nan), np.where(harmful[:, 0], np.nan, o)])
        for o in outcome.T
    ]
    return columns, names


def covered(net: bool, draws: int, n_harmful: int = 30, n_permitted: int = 20) -> float:
    """How often the interval of ER (or ER_J) holds the true value."""
    from persona_probe.study.sufficiency import effect_reproduced

    truth = (0.62 - 0.04) / (0.92 - 0.04)
    if net:
        truth = ((0.62 - 0.07) - (0.04 - 0.01)) / ((0.92 - 0.05) - (0.04 - 0.01))
    rng = np.random.default_rng(int(net))
    hits = []
    for seed in range(draws):
        (steered, finetuned, before), names = behaviours(rng, n_harmful, n_permitted)
        found = effect_reproduced(steered, finetuned, before, names, net=net, seed=seed, **OPTIONS)
        hits.append(found.low <= truth <= found.high)
    return float(np.mean(hits))


@pytest.mark.parametrize("net", [False, True], ids=["ER", "ER_J"])
def test_intervals_of_the_effect_cover_the_truth(net: bool) -> None:
    # 120 draws: a true 95 % falls below this with probability 0.001.
    assert covered(net, draws=120) >= 0.875


@pytest.mark.slow
@pytest.mark.parametrize("net", [False, True], ids=["ER", "ER_J"])
def test_intervals_of_the_effect_cover_the_truth_in_93_to_97_percent(net: bool) -> None:
    assert 0.93 <= covered(net, DRAWS) <= 0.97


def profile_pair(rng: np.random.Generator, shift: np.ndarray, n_items: int) -> tuple[object, ...]:
    """Profiles before and after, whose items are drawn from a population with this mean shift."""
    from persona_probe.evaluation.profile import Profile
    from persona_probe.personas.diagnostic import Item

    dimensions = tuple(f"D{i}" for i in range(len(shift)))
    items = tuple(
        Item(f"{d}-{i}", d, 1, "statement", f"{d}-{i}", "?", ("Yes.", "No."))
        for d in dimensions
        for i in range(n_items)
    )
    own = rng.normal(0.0, 0.3, size=len(items))
    before = own + rng.normal(0.0, 0.1, size=len(items))
    after = own + np.repeat(shift, n_items) + rng.normal(0.0, 0.35, size=len(items))
    mass = np.ones(len(items))
    return tuple(
        Profile(name, dimensions, items, scores, mass)
        for name, scores in (("after", after), ("before", before))
    )


def match_covered(draws: int, n_items: int = 20) -> float:
    """How often the interval of the signature match (P1) holds the population's correlation."""
    from persona_probe.evaluation.profile_match import signature_match

    rng = np.random.default_rng(0)
    expected = np.array([1.0, 1.0, -1.0, 0.0, -1.0, 0.0, -0.5, 0.0, 0.0, -0.5])
    shift = 0.4 * expected + np.array([0.2, -0.1, 0.1, 0.2, 0.0, -0.2, 0.1, -0.1, 0.1, 0.0])
    signature = {f"D{i}": value for i, value in enumerate(expected)}
    truth = float(np.corrcoef(shift, expected)[0, 1])
    hits = []
    for seed in range(draws):
        after, before = profile_pair(rng, shift, n_items)
        found = signature_match(after, before, signature, permutations=1, seed=seed, **OPTIONS)
        hits.append(found.pearson.low <= truth <= found.pearson.high)
    return float(np.mean(hits))


def test_intervals_of_the_signature_match_cover_the_truth() -> None:
    assert match_covered(draws=120) >= 0.875


@pytest.mark.slow
@pytest.mark.parametrize("n_items", [6, 20])
def test_intervals_of_the_match_cover_the_truth_in_93_to_97_percent(n_items: int) -> None:
    assert 0.93 <= match_covered(DRAWS, n_items) <= 0.97


def test_the_p_of_a_signature_match_is_uniform_when_nothing_moved() -> None:
    from scipy.stats import kstest

    from persona_probe.evaluation.profile_match import signature_match

    def p_values(shift: float, draws: int) -> list[float]:
        rng = np.random.default_rng(1)
        # Ten different values: tied ones would make the p-values coarse.
        expected = np.linspace(-1.0, 1.0, 10)
        signature = {f"D{i}": value for i, value in enumerate(expected)}
        found = []
        for seed in range(draws):
            after, before = profile_pair(rng, shift * expected, n_items=6)
            match = signature_match(
                after, before, signature, permutations=199, resamples=10, seed=seed
            )
            found.append(match.p)
        return found

    assert kstest(p_values(0.0, 250), "uniform").pvalue > 0.01
    assert kstest(p_values(0.1, 60), "uniform").pvalue < 0.001
