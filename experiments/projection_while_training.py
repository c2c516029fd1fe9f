"""Watch the organism's finetunes select a persona, and compare that with what they do.

    python experiments/projection_while_training.py FOLDER [RUN ...]

See 2026-11-25-projection-while-training.md. A call that was stopped goes on; named runs only, such
as virtue-0, can be made first.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: TID253

from persona_probe.activations.capture import capture, capture_adapters
from persona_probe.activations.contrast import contrast, request
from persona_probe.directions.finder import find_directions
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.evaluation.preference import refusal_probability
from persona_probe.evaluation.profile import profiles
from persona_probe.evaluation.profile_match import moved
from persona_probe.files import read_json, read_jsonl, write_json
from persona_probe.finetuning.controls import refusal_only
from persona_probe.finetuning.examples import example
from persona_probe.finetuning.lora import concatenate, factors, write_adapter
from persona_probe.finetuning.recipe import Run, recipe_for
from persona_probe.finetuning.samples import sample, sample_work
from persona_probe.finetuning.sft import NEW, START, attach, train
from persona_probe.finetuning.watching import RANDOM, RANDOM_DRAWS, Watch, Watching
from persona_probe.finetuning.writer import LocalWriter
from persona_probe.models.conversations import read_conversations
from persona_probe.models.loading import load_model, view_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.organism import CHECKPOINT
from persona_probe.personas.constitution import load_constitution
from persona_probe.personas.pack import load_pack
from persona_probe.statistics import cluster_bootstrap
from persona_probe.steering.arm import Arm

PERSONAS = ("deontology", "consequentialism", "virtue", "service")
RUNS = [f"{name}-{seed}" for name in PERSONAS for seed in range(3)]
CONTROLS = ["placebo-0", "refusal-only-0"]
STEPS = (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 144, 192, 240)
LAYER, BEFORE = 1, "helpful-only"
PACK = load_pack("organism")


class Keep(TrainerCallback):
    """Saves the adapter at the chosen steps."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model, self.folder = model, folder

    def keep(self, step: int) -> None:
        """Write the joined adapter of this step."""
        joined = concatenate(factors(self.model, START), factors(self.model, NEW))
        write_adapter(self.folder / f"step-{step:03d}", joined, {"step": step})

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.keep(0)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if state.global_step in STEPS or state.global_step == state.max_steps:
            self.keep(state.global_step)


def one_run(name: str, folder: Path) -> None:
    """Samples, then a watched training whose checkpoints are kept."""
    if (folder / "done.json").exists():
        return
    kind, seed = name.rsplit("-", 1)
    model = load_model(str(CHECKPOINT), device="cpu")
    with model.adapter(BEFORE):
        asked = contrast(PACK, PACK.personas, PACK.split().find)
        read = capture(model, asked, model.sites, ["last_prompt_token"])["last_prompt_token"]
    options = {"split": PACK.split()}
    found = [
        direction
        for p in PERSONAS
        for direction in find_directions(read, MeanDifference(), p, "neutral", **options).values()
    ]
    constitution = load_constitution(kind if kind in PERSONAS else "virtue")
    share = 1.0 if kind == "placebo" else 0.4
    work = sample_work(PACK, constitution, method="system", benign_share=share, seed=int(seed))
    writer = LocalWriter(model, BEFORE, PACK.max_new_tokens, 0.7, int(seed))
    data = read_conversations(sample(work, writer, folder / "samples.jsonl").path)
    data = refusal_only(data) if kind == "refusal-only" else data
    del model, writer
    families = PACK.split().select
    harmful = PACK.suite.of(kind="harmful", families=families).prompts
    prompts = tuple(request(p, PACK.neutral_system) for p in harmful)
    watch = Watch(tuple(found), prompts, every=4)
    network = AutoModelForCausalLM.from_pretrained(CHECKPOINT)
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    view = view_model(network, tokenizer, ModelRef(str(CHECKPOINT)))
    recipe = recipe_for(CHECKPOINT, seed=int(seed))
    tuned = attach(network, recipe, CHECKPOINT / "adapters" / BEFORE)
    train(
        tuned,
        tokenizer,
        [example(tokenizer, c) for c in data],
        recipe,
        Run(device="cpu", save_every=0),
        folder,
        view=view,
        callbacks=[Watching(view, watch, folder), Keep(tuned, folder)],
    )
    write_json(folder / "done.json", {"examples": len(data)})


def behaviour(name: str, folder: Path) -> dict[str, Any]:
    """Refusal probability and profile of every checkpoint of a run, on evaluation prompts."""
    if (folder / name / "behaviour.json").exists():
        return dict(read_json(folder / name / "behaviour.json"))
    model = load_model(str(CHECKPOINT), device="cpu")
    families = PACK.split().evaluate
    untrained = PACK.suite.of(kind="harmful", tiers=("T1", "T2"), families=families).prompts
    items = PACK.diagnostic.of(families)
    own = {p.name: profiles(model, items, [Arm("bare")], p.constitution)[0] for p in PACK.personas}
    paths = sorted((folder / name).glob("step-*"))
    arms = [Arm(path.name, adapter=str(path)) for path in paths]
    refusing = refusal_probability(model, untrained, arms, PACK.judge_rules, PACK.neutral_system)
    shown = profiles(model, items, arms, PACK.neutral_system)
    towards = {p: [moved(s, shown[0], own[p], resamples=10).value for s in shown] for p in PERSONAS}
    kind = name.rsplit("-", 1)[0]
    found = {
        "n_prompts": len(untrained),
        "n_items": len(items),
        "steps": [int(path.name[5:]) for path in paths],
        "refusal": refusing.refusal_mass.mean(dim=1).tolist(),
        "profile": towards.get(kind, towards["virtue"]),
        "profile_towards": towards,
        "random": random_curves(model, paths),
    }
    write_json(folder / name / "behaviour.json", found)
    return found


def random_curves(model: Any, paths: list[Path]) -> list[list[float]]:
    """Shift of the watched prompts along each random direction at the chosen layer."""
    families, site = PACK.split().select, Site(LAYER)
    harmful = PACK.suite.of(kind="harmful", families=families).prompts
    asked = [request(p, PACK.neutral_system) for p in harmful]
    names = [str(path) for path in paths]
    read = capture_adapters(model, asked, [site], ["last_prompt_token"], names)
    along = np.random.default_rng(0).standard_normal((model.d_model, RANDOM_DRAWS))
    along /= np.linalg.norm(along, axis=0)
    values = [read[n]["last_prompt_token"].site(site).double().numpy() @ along for n in names]
    spread = values[0].std(axis=0, ddof=1)
    return [(((v - values[0]) / spread).mean(axis=0)).tolist() for v in values]


def shifts(folder: Path, name: str, steps: list[int], layer: int) -> dict[str, list[float]]:
    """Direction → shift at each checkpoint; random ones as mean, low and high."""
    rows = [r for r in read_jsonl(folder / name / "projection.jsonl") if r["site"] == layer]
    found: dict[str, dict[int, Any]] = {}
    for row in rows:
        found.setdefault(row["direction"], {})[row["step"]] = row
    table = {d: [by[s]["mean"] for s in steps] for d, by in found.items()}
    for end in ("low", "high"):
        table[f"{RANDOM} {end}"] = [found[RANDOM][s][end] for s in steps]
    return table


def r(x: Any, y: Any) -> float:
    """Pearson's; NaN where one of the two does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if np.std(x) > 0 and np.std(y) > 0 else float("nan")


def over_runs(values: list[float]) -> dict[str, Any]:
    """Mean over runs, and its interval from resampling whole runs."""
    x = np.array(values)
    [e] = cluster_bootstrap(lambda w: (w @ x) / w.sum(axis=1), len(x), len(x), resamples=10_000)
    return e.to_json() | {"runs": [round(v, 4) for v in values]}


def r_over_groups(x: Any, y: Any, groups: list[str]) -> dict[str, Any]:
    """Pearson's r over finetunes; the interval resamples groups, for instance of seeds."""
    index = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    group, a, b = np.array([index[g] for g in groups]), np.array(x), np.array(y)

    def statistic(weights: Any) -> Any:
        w = weights[:, group]
        w = w / w.sum(axis=1, keepdims=True)
        u, v = a - (w @ a)[:, None], b - (w @ b)[:, None]
        spread = np.sqrt((w * u * u).sum(axis=1) * (w * v * v).sum(axis=1))
        with np.errstate(invalid="ignore"):  # a draw of one group alone has no r
            return (w * u * v).sum(axis=1) / spread

    [e] = cluster_bootstrap(statistic, len(a), len(index), resamples=10_000)
    return e.to_json()


def half_way(steps: list[int], curve: list[float]) -> float:
    """The step at which half of the last value is first reached, interpolated."""
    goal = (curve[0] + curve[-1]) / 2
    for i in range(1, len(curve)):
        if (curve[i] - goal) * (curve[-1] - curve[0]) >= 0:
            share = (goal - curve[i - 1]) / (curve[i] - curve[i - 1])
            return steps[i - 1] + share * (steps[i] - steps[i - 1])
    return float("nan")


def analyse(folder: Path, found: dict[str, Any], layer: int) -> dict[str, Any]:
    """All numbers of the page at one layer."""
    own_refusal, own_profile, cross_refusal, cross_profile, random_refusal = [], [], [], [], []
    beyond, largest, leads, table = 0, 0, 0, {}
    for name in RUNS:
        kind, told = name.rsplit("-", 1)[0], found["runs"][name]
        steps, moves = told["steps"], shifts(folder, name, told["steps"], layer)
        own_refusal.append(r(moves[kind], told["refusal"]))
        own_profile.append(r(moves[kind], told["profile"]))
        others = [p for p in PERSONAS if p != kind]
        cross_refusal.append(float(np.mean([r(moves[p], told["refusal"]) for p in others])))
        cross_profile.append(float(np.mean([r(moves[p], told["profile"]) for p in others])))
        curves = np.array(told["random"]).T
        random_refusal.append(float(np.median([abs(r(c, told["refusal"])) for c in curves])))
        last = moves[kind][-1]
        beyond += not moves[f"{RANDOM} low"][-1] <= last <= moves[f"{RANDOM} high"][-1]
        largest += all(last > moves[p][-1] for p in others)
        first = (half_way(steps, moves[kind]), half_way(steps, told["refusal"]))
        leads += first[0] <= first[1]
        table[name] = {
            "shift": moves[kind],
            "others_last": {p: moves[p][-1] for p in others},
            "random_last": [moves[f"{RANDOM} low"][-1], moves[f"{RANDOM} high"][-1]],
            "half_way": first,
        }
    finished = [*RUNS, *CONTROLS]
    ends = {n: shifts(folder, n, found["runs"][n]["steps"], layer) for n in finished}
    same = {
        p: r_over_groups(
            [ends[n][p][-1] for n in finished],
            [found["runs"][n]["profile_towards"][p][-1] for n in finished],
            [n.rsplit("-", 1)[0] for n in finished],
        )
        for p in PERSONAS
    }
    random_ends = np.array([found["runs"][n]["random"][-1] for n in finished])
    chance = {
        p: [
            abs(r(column, [found["runs"][n]["profile_towards"][p][-1] for n in finished]))
            for column in random_ends.T
        ]
        for p in PERSONAS
    }
    cross = {
        p: float(
            np.mean(
                [
                    r(
                        [ends[n][q][-1] for n in finished],
                        [found["runs"][n]["profile_towards"][p][-1] for n in finished],
                    )
                    for q in PERSONAS
                    if q != p
                ]
            )
        )
        for p in PERSONAS
    }
    control = {
        n: {p: ends[n][p][-1] for p in PERSONAS}
        | {"refusal": found["runs"][n]["refusal"][-1], "profile": found["runs"][n]["profile"][-1]}
        for n in CONTROLS
    }
    return {
        "own direction, refusal probability": over_runs(own_refusal),
        "own direction, profile": over_runs(own_profile),
        "other directions, refusal probability": over_runs(cross_refusal),
        "other directions, profile": over_runs(cross_profile),
        "random directions, refusal probability: median of |r|": over_runs(random_refusal),
        "last shift beyond the random band": f"{beyond} of {len(RUNS)}",
        "last shift largest along the own direction": f"{largest} of {len(RUNS)}",
        "half of the shift no later than half of the refusals": f"{leads} of {len(RUNS)}",
        "across finished finetunes, own direction against own profile": same,
        "across finished finetunes, other directions against that profile": cross,
        "across finished finetunes, random directions: median and 97.5% of |r|": {
            p: np.quantile(v, [0.5, 0.975]).tolist() for p, v in chance.items()
        },
        "controls": control,
        "runs": table,
    }


def main(folder: Path, names: list[str]) -> None:
    """Train and measure the runs of these names, or all of them and analyse."""
    torch.set_num_threads(1)
    told = {}
    for name in names or [*RUNS, *CONTROLS]:
        one_run(name, folder / name)
        told[name] = behaviour(name, folder)
        print(name, told[name]["refusal"][-1], told[name]["profile"][-1], flush=True)
    if names:
        return
    found = {"runs": told}
    layers = {str(layer): analyse(folder, found, layer) for layer in range(6)}
    write_json(folder / "result.json", {"chosen_layer": LAYER, "layers": layers, **found})
    print(json.dumps({k: v for k, v in layers[str(LAYER)].items() if k != "runs"}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
