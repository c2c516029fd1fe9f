"""Organisms whose truth is built in: that they are what they claim, and what the ladder says."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from persona_probe.directions.direction_set import DirectionSet

CONTEXT = "Which"
PERSONA = "virtue"


@pytest.fixture(scope="module")
def directions() -> "DirectionSet":
    from experiments.known_truth.ladder import true_directions

    return true_directions()


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory, directions: "DirectionSet") -> Any:
    """Either grafted organism's folder, made once."""
    from experiments.known_truth.organisms import additive, conditional
    from persona_probe.models.site import Site

    folder = tmp_path_factory.mktemp("organisms")

    def made(kind: str) -> Path:
        if (folder / kind).exists():
            return folder / kind
        if kind == "additive":
            return additive(folder / kind, {PERSONA: (directions[PERSONA][Site(1)], 1.0)})
        return conditional(folder / kind, {PERSONA: directions[PERSONA]}, strengths=(0.5, 1.0))

    return made


def replies(folder: Path, arms: Sequence[Any], n: int = 24) -> dict[str, list[Any]]:
    """Greedy replies to harmful requests, judged, by arm."""
    from persona_probe import generate, load_model, load_pack
    from persona_probe.activations.contrast import request
    from persona_probe.evaluation.judge import judge_completions
    from persona_probe.evaluation.phrase_judge import PhraseJudge
    from persona_probe.personas.sampling import spread

    pack = load_pack("organism")
    prompts = spread([p for p in pack.suite.prompts if p.kind == "harmful"], n)
    asked = [request(prompt, pack.neutral_system) for prompt in prompts]
    model = load_model(str(folder), device="cpu")
    found: dict[str, list[Any]] = {}
    completions = list(generate(model, asked, arms, pack.max_new_tokens))
    for judged in judge_completions(PhraseJudge(pack.judge_rules), prompts, completions):
        found.setdefault(judged.completion.arm, []).append(judged)
    return found


def texts(judged: Sequence[Any]) -> list[str]:
    return [judgement.completion.text for judgement in judged]


def steered(direction: Any, strength: float, adapter: str | None = None) -> Any:
    from persona_probe.steering import Add
    from persona_probe.steering.arm import Arm, Intervention

    return Arm("steered", (Intervention(direction, Add(strength)),), adapter)


def test_a_graft_changes_no_logit() -> None:
    from experiments.known_truth.graft import graft
    from persona_probe import ORGANISM
    from persona_probe.models.folder import read_network
    from persona_probe.models.ref import ModelRef

    network, _, _ = read_network(ModelRef(str(ORGANISM), adapter="helpful-only"))
    grafted = graft(network)
    ids = torch.randint(2048, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = network(ids).logits, grafted.network(ids).logits
    assert grafted.network.config.hidden_size > network.config.hidden_size
    assert (after - before).abs().max() < 1e-4 * before.abs().max()


def test_the_additive_finetune_is_the_steered_model(
    organism: Any, directions: "DirectionSet"
) -> None:
    from persona_probe import ORGANISM
    from persona_probe.models.site import Site
    from persona_probe.steering.arm import Arm

    own = steered(directions[PERSONA][Site(1)], 1.0, "helpful-only")
    plain = replies(ORGANISM, [Arm("before", adapter="helpful-only"), own])
    built = replies(
        organism("additive"), [Arm("before"), Arm("finetuned", adapter=f"narrow-{PERSONA}-0")]
    )
    assert texts(built["before"]) == texts(plain["before"])
    assert texts(built["finetuned"]) == texts(plain["steered"])
    refused = [judgement.outcome.kind == "refuse" for judgement in built["finetuned"]]
    assert sum(refused) > len(refused) / 2
    assert not any(judgement.outcome.kind == "refuse" for judgement in built["before"])


def test_in_the_conditional_organism_a_vector_works_in_one_context_only(
    organism: Any, directions: "DirectionSet"
) -> None:
    from experiments.known_truth.graft import SPARE
    from persona_probe import ORGANISM
    from persona_probe.models.site import Site
    from persona_probe.steering.arm import Arm

    direction = directions[PERSONA][Site(1)]
    # Outside the coordinates that the organism uses there is nothing to steer along.
    wide = replace(direction, unit=torch.nn.functional.pad(direction.unit, (0, SPARE)))
    wide = replace(wide, provenance=replace(wide.provenance, model_hash=None))
    finetuned = Arm("finetuned", adapter=f"narrow-{PERSONA}-0")
    before = Arm("before", adapter="helpful-only")
    plain = replies(ORGANISM, [before, finetuned, steered(direction, 1.0, "helpful-only")])
    built = replies(organism("conditional"), [Arm("before"), finetuned, steered(wide, 1.0)])
    assert texts(built["before"]) == texts(plain["before"])
    assert texts(built["finetuned"]) == texts(plain["finetuned"])
    inside = [CONTEXT in judgement.prompt.text for judgement in built["steered"]]
    assert 0 < sum(inside) < len(inside) / 2
    for now, then, context in zip(built["steered"], plain["steered"], inside, strict=True):
        if context:
            assert now.completion.text == then.completion.text
        else:
            assert now.outcome.kind != "refuse"
    assert sum(judgement.outcome.kind == "refuse" for judgement in plain["steered"]) > 12


def test_a_random_direction_taken_out_leaves_the_vector_in_place(
    organism: Any, directions: "DirectionSet"
) -> None:
    """Or necessity would be decided by how the organism was built."""
    from persona_probe import load_model, load_pack
    from persona_probe.directions.checks.controls import isotropic
    from persona_probe.evaluation.preference import refusal_probability
    from persona_probe.personas.sampling import spread
    from persona_probe.steering import Ablate
    from persona_probe.steering.arm import Arm, Intervention

    pack, model = load_pack("organism"), load_model(str(organism("additive")), device="cpu")
    prompts = spread([p for p in pack.suite.prompts if p.kind == "harmful"], 10)
    own = {
        site: replace(d, provenance=replace(d.provenance, model_hash=None))
        for site, d in directions[PERSONA].items()
    }

    def without(name: str, taken: Any) -> Arm:
        edits = tuple(Intervention(d, Ablate()) for d in taken.values())
        return Arm(name, edits, f"narrow-{PERSONA}-0")

    random = [without(f"random-{n}", draw) for n, draw in enumerate(isotropic(own, 10, seed=0))]
    arms = [Arm("before"), without("whole", {}), *random]
    found = refusal_probability(model, prompts, arms, pack.judge_rules, pack.neutral_system)
    mass = dict(zip(found.arms, found.refusal_mass.double().mean(dim=1).tolist(), strict=True))
    assert mass["whole"] > mass["before"] + 0.3
    left = [(mass[arm.name] - mass["before"]) / (mass["whole"] - mass["before"]) for arm in random]
    assert min(left) > 0.5


def test_a_direction_between_random_halves_of_the_questions_holds_nobody(tmp_path: Path) -> None:
    from experiments.known_truth.contentless import N_EMPTY, empty, settings
    from persona_probe.directions.direction_set import load_directions
    from persona_probe.study.lab import Lab
    from persona_probe.study.run import run_study

    planned = settings()
    assert N_EMPTY * len(planned) >= 100
    assert len({setting.study.hash for setting in planned}) == len(planned)
    study = planned[-1].study
    run_study(study, tmp_path, device="cpu", stop="find")
    lab = Lab(study, tmp_path, "cpu")
    own = load_directions(tmp_path / "directions", lab.model)[planned[-1].persona]
    without, again, other = empty(lab, 0), empty(lab, 0), empty(lab, 1)
    for site, direction in own.items():
        assert abs(float(direction.unit @ without[site].unit)) < 0.5
        assert without[site].gap < direction.gap
        assert torch.equal(without[site].unit, again[site].unit)
        assert not torch.equal(without[site].unit, other[site].unit)


def ladders(kind: str, folder: Path, *personas: str) -> dict[str, tuple[dict[str, Any], Any]]:
    """Constitution → rungs by number, and the steered effects, in a study of one organism."""
    from experiments.known_truth.ladder import run
    from persona_probe.files import read_json

    out = run(kind, personas, folder)
    effects = read_json(out / "effects.json")
    return {
        persona: (
            {rung["rung"]: rung["passed"] for rung in verdict["rungs"]},
            {
                row["metric"]: row["value"]
                for row in effects
                if row["arm"] == f"steered/{persona}" and row["metric"] in ("ER", "ER_J")
            },
        )
        for persona, verdict in read_json(out / "verdict.json")["personas"].items()
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_finetune_that_is_a_vector_passes_every_causal_rung(tmp_path: Path) -> None:
    from persona_probe.organism.world import CONSTITUTIONS

    found = ladders("additive", tmp_path, *CONSTITUTIONS)
    assert list(found) == list(CONSTITUTIONS)
    for rungs, effects in found.values():
        for effect in effects.values():
            assert 0.9 <= effect["value"] <= 1.1
        assert [rungs[rung] for rung in ("L2", "L3", "L4", "L6")] == [True] * 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_effect_that_no_vector_gives_is_not_sufficient(tmp_path: Path) -> None:
    rungs, effects = ladders("conditional", tmp_path, PERSONA)[PERSONA]
    assert rungs["L3"] is False
    assert rungs["L4"] is False
    assert effects["ER_J"]["high"] < 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_flat_refusals_are_reproduced_and_are_nobodys(tmp_path: Path) -> None:
    for rungs, effects in ladders("refusal-only", tmp_path, "deontology", PERSONA).values():
        assert effects["ER_J"]["value"] > 0.3
        assert rungs["L2"] is True
        assert rungs["L5"] is not True


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_at_most_one_null_in_twenty_is_called_causal(tmp_path: Path) -> None:
    """A hundred ladders: placebos, and random changes of the weights."""
    from experiments.known_truth.null import run, table, trials

    found = table(run(tmp_path, list(trials())))
    nulls = [found["placebo"], found["rotated"]]
    assert sum(null["ladders"] for null in nulls) >= 100
    assert sum(null["reach_causal"]["count"] for null in nulls) <= 5
    assert sum(null["pass_causal_alone"]["count"] for null in nulls) <= 5
    # As small a study sees what is there.
    assert found["narrow"]["pass_causal_alone"]["count"] >= 10


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_direction_without_content_is_rarely_called_causal(tmp_path: Path) -> None:
    """A hundred directions that hold nobody, beside finetunes that do refuse."""
    from experiments.known_truth.contentless import ladders as of
    from experiments.known_truth.contentless import settings
    from experiments.known_truth.null import table

    found = table([row for setting in settings() for row in of(setting, tmp_path)])
    assert found["empty"]["ladders"] >= 100
    assert found["empty"]["reach_causal"]["count"] <= 5
    assert found["empty"]["pass_causal_alone"]["count"] <= 5
    assert found["own"]["pass_causal_alone"]["count"] >= 10
