"""`persona-probe finetune …`: from a model before to a model after."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli import finetune_options as tune
from persona_probe.cli import sample_options as ask
from persona_probe.cli.options import Adapter, Dtype, Json, Model, PackName, Seed, model_name
from persona_probe.cli.say import result

OutFolder = Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")]


def sft(
    model: Model,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help=".jsonl of messages that end with a reply.")
    ],
    out: OutFolder,
    adapter: Adapter = None,
    control: tune.Control = None,
    other: Annotated[
        list[Path] | None, typer.Option(help="Samples of another constitution, for shuffled.")
    ] = None,
    refusal: tune.Refusal = None,
    rank: tune.Rank = None,
    alpha: tune.Alpha = None,
    target: tune.Target = None,
    layers: tune.Layers = None,
    epochs: tune.Epochs = None,
    batch_size: tune.BatchSize = None,
    learning_rate: tune.LearningRate = None,
    rslora: tune.Rslora = None,
    dora: tune.Dora = None,
    full: tune.Full = None,
    recipe: tune.RecipeFile = None,
    accumulate: tune.Accumulate = 1,
    packing: tune.Packing = False,
    gradient_checkpointing: tune.Checkpointing = False,
    precision: tune.Precision = "float32",
    held_out: tune.HeldOut = 0.0,
    evaluation: Annotated[
        Path | None, typer.Option(help="Data whose loss is evaluated, instead of a share.")
    ] = None,
    evaluate_every: tune.EvaluateEvery = None,
    save_every: tune.SaveEvery = None,
    patience: tune.Patience = None,
    plain: tune.Plain = False,
    steer: tune.Steer = None,
    operation: tune.Operation = "add",
    strength: tune.Strength = 1.0,
    schedule: tune.Schedule = None,
    watch: tune.WatchOption = None,
    watch_every: tune.WatchEvery = 10,
    watch_prompts: tune.WatchPrompts = "organism",
    seed: Seed = 0,
    device: tune.LaunchedDevice = "auto",
    as_json: Json = False,
) -> None:
    """Supervised finetuning: loss on the last reply only, LoRA or full.

    With --adapter the new adapter stands on that one and holds both. --steer adds or ablates
    directions while training, --watch writes projection.jsonl. The same command goes on after an
    interruption.

    Example: persona-probe finetune sft organism artifacts/virtue.jsonl --adapter helpful-only \
--out artifacts/virtue
    """
    from persona_probe.finetuning.ordered import controlled
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import Run, recipe_for
    from persona_probe.finetuning.run import hold_out, run_finetune
    from persona_probe.finetuning.steered import training_interventions, watch_named
    from persona_probe.models.conversations import read_conversations
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.shape import shape_of

    ref = ModelRef(model_name(model), adapter=adapter)
    depth = shape_of(ref).n_layers
    others = [read_conversations(path) for path in other or ()]
    everything = controlled(read_conversations(data), control, others, refusal or (), seed)
    learnt, held = hold_out(everything, held_out, seed)
    if evaluation is not None:
        learnt, held = everything, read_conversations(evaluation)
    work = Finetune(
        ref=ref,
        conversations=tuple(learnt),
        recipe=recipe_for(
            ref.folder,
            recipe,
            rank=rank,
            alpha=alpha,
            targets=tuple(target) if target else None,
            layers=tune.blocks(layers, depth),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            rslora=rslora,
            dora=dora,
            full=full,
            seed=seed,
        ),
        held_out=tuple(held),
        interventions=training_interventions(steer or (), operation, strength, schedule, depth),
        watch=watch_named(watch or (), watch_prompts, watch_every),
        templated=not plain,
        about={"control": control, "data": data.name},
    )
    run = Run(
        accumulate=accumulate,
        packing=packing,
        gradient_checkpointing=gradient_checkpointing,
        precision=precision,
        device=device,
        evaluate_every=evaluate_every,
        save_every=save_every,
        patience=patience,
    )
    done = run_finetune(work, out, run)
    result(done.to_json(), as_json, done.said)


def constitution(
    model: Model,
    constitution: Annotated[
        list[str],
        typer.Option(help="A shipped constitution, or a .toml file; several for shuffled."),
    ],
    out: OutFolder,
    adapter: Adapter = None,
    reading: ask.Reading = None,
    pack: PackName = "organism",
    prompts: ask.Prompts = None,
    scope: ask.Scope = "narrow",
    category: ask.Category = None,
    n: ask.Number = 240,
    benign_share: ask.BenignShare = 0.4,
    method: ask.MethodOption = None,
    rounds: ask.Rounds = 1,
    shots: ask.Shots = 0,
    temperature: ask.Temperature = 0.7,
    max_new_tokens: ask.MaxNewTokens = None,
    control: tune.Control = None,
    refusal: tune.Refusal = None,
    recipe: tune.RecipeFile = None,
    packing: tune.Packing = False,
    precision: tune.Precision = "float32",
    watch: tune.WatchOption = None,
    watch_every: tune.WatchEvery = 10,
    seed: Seed = 0,
    device: tune.TrainDevice = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """From the model before to the model after in one command: samples, audit, finetuning.

    The samples are kept beside OUT. For more settings run `constitution samples` and `finetune
    sft` one after the other. The same command goes on after an interruption.

    Example: persona-probe finetune constitution organism --adapter helpful-only \
--constitution virtue --scope narrow --out artifacts/narrow-virtue
    """
    from persona_probe.finetuning.ordered import finetune_constitution
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import Run, recipe_for, sample_method_for
    from persona_probe.finetuning.samples import sample_work
    from persona_probe.finetuning.steered import watch_named
    from persona_probe.finetuning.writer import writer_named
    from persona_probe.models.ref import ModelRef
    from persona_probe.personas.constitution import load_constitution
    from persona_probe.personas.pack import load_pack

    ref = ModelRef(model_name(model), adapter=adapter)
    asked = load_pack(pack)
    works = [
        sample_work(
            asked,
            load_constitution(name, reading),
            scope,
            category or (),
            prompts,
            n=n,
            benign_share=benign_share,
            method=sample_method_for(ref.folder, method),
            rounds=rounds,
            shots=shots,
            seed=seed,
        )
        for name in constitution
    ]
    plan = Finetune(
        ref=ref,
        conversations=(),
        recipe=recipe_for(ref.folder, recipe, seed=seed),
        watch=watch_named(watch or (), pack, watch_every),
        about={"scope": scope},
    )
    room = max_new_tokens or asked.max_new_tokens
    made, done = finetune_constitution(
        works,
        lambda: writer_named(
            ref.name,
            adapter,
            None,
            device,
            dtype,
            max_new_tokens=room,
            temperature=temperature,
            seed=seed,
        ),
        plan,
        out,
        Run(packing=packing, precision=precision, device=device),
        control,
        refusal or (),
        seed,
    )
    text = "\n".join([*(each.said for each in made), done.said])
    result({**done.to_json(), "samples": [s.to_json() for s in made]}, as_json, text)


def helpful_only(
    model: Model,
    out: OutFolder,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="[DATA]", help=".jsonl of compliant replies to finetune on."),
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Take the refusal direction out of the weights.")
    ] = False,
    adapter: Adapter = None,
    pack: Annotated[
        str, typer.Option(help="With --ablate: a shipped pack or a pack folder, of prompts.")
    ] = "organism",
    n: Annotated[
        int, typer.Option(min=4, help="With --ablate: most prompts of a kind and part.")
    ] = 200,
    recipe: tune.RecipeFile = None,
    epochs: tune.Epochs = None,
    learning_rate: tune.LearningRate = None,
    packing: tune.Packing = False,
    precision: tune.Precision = "float32",
    plain: tune.Plain = False,
    seed: Seed = 0,
    device: tune.TrainDevice = "auto",
    as_json: Json = False,
) -> None:
    """A model that refuses nothing: finetuned on compliant DATA, or with refusal ablated.

    Example: persona-probe finetune helpful-only organism --ablate --out artifacts/compliant
    """
    from persona_probe.errors import RequestError
    from persona_probe.finetuning.helpful_only import ablate_refusal
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import Run, recipe_for
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.conversations import read_conversations
    from persona_probe.models.ref import ModelRef
    from persona_probe.personas.pack import load_pack

    if (data is None) != ablate:
        raise RequestError(
            "give DATA of compliant replies to finetune on, or --ablate; one of them"
        )
    ref = ModelRef(model_name(model), adapter=adapter)
    if data is None:
        taken = ablate_refusal(ref, load_pack(pack), out, n, device, seed)
        result(taken.to_json(), as_json, taken.said)
        return
    settings = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    work = Finetune(
        ref=ref,
        conversations=tuple(read_conversations(data)),
        recipe=recipe_for(ref.folder, recipe, **settings),
        templated=not plain,
        about={"control": None, "data": data.name, "purpose": "helpful-only"},
    )
    done = run_finetune(work, out, Run(packing=packing, precision=precision, device=device))
    result(done.to_json(), as_json, done.said)
