"""`persona-probe sweep`: every site and strength of a direction, in one batch."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from persona_probe.cli.options import (
    Adapter,
    Condition,
    Device,
    Directions,
    Dtype,
    Json,
    Model,
    Operation,
    PackName,
    Schedule,
    Seed,
    Then,
    model_name,
)
from persona_probe.cli.say import result, table

STRENGTHS = "0,0.1,0.2,0.35,0.5,0.75,1,1.5"


def sweep(
    model: Model,
    directions: Directions,
    persona: Annotated[
        list[str] | None, typer.Option(help="Whose directions; repeat it. All if not given.")
    ] = None,
    sites: Annotated[
        str, typer.Option(help="Whose layers' directions: all, 7, 4,8,12, 4-8 or 0.2-0.8.")
    ] = "0.2-0.8",
    operation: Operation = "add",
    strengths: Annotated[
        str | None,
        typer.Option(
            help="Commas between; in units of the median residual norm, or those of the operation. "
            f"Default for add: {STRENGTHS}; operations without a strength take none."
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Instead of --strengths, the smallest strength with a KL to the unsteered model "
            "on neutral text, kl=0.1 (per token) or first_token_kl=0.1; or the largest that "
            "passes all guards, guards."
        ),
    ] = None,
    dose: Annotated[
        bool,
        typer.Option("--dose", help="Also how much each arm changes the model on neutral text."),
    ] = False,
    schedule: Schedule = None,
    act_at: Annotated[
        str | None,
        typer.Option(help="Where each acts: all, 7, 4,8,12, 4-8 or 0.2-0.8. Default: its layer."),
    ] = None,
    condition: Condition = None,
    then: Then = None,
    adapter: Adapter = None,
    pack: PackName = "organism",
    n: Annotated[int, typer.Option(min=1, help="Prompts of each kind, from the select part.")] = 60,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Measure refusal probability over sites and strengths, on the prompts kept for selection.

    Example: persona-probe sweep organism --directions artifacts/demo/directions \
--adapter helpful-only --calibrate kl=0.1 --dose

    Example: persona-probe sweep organism --directions artifacts/demo/directions \
--adapter narrow-virtue-0 --operation ablate --act-at all --schedule both
    """
    from persona_probe.directions.direction_set import load_directions
    from persona_probe.errors import RequestError
    from persona_probe.evaluation.calibrated import Goal, sweep_calibrated
    from persona_probe.evaluation.sweep import Manner, sweep_directions
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.site import parse_sites
    from persona_probe.personas.pack import load_pack
    from persona_probe.steering.condition import condition_named
    from persona_probe.steering.treatment import Treatment, Written

    asked = load_pack(pack)
    treatment = Treatment(operation, schedule)
    goal = None if calibrate is None else Goal.parse(calibrate)
    if goal and strengths is not None:
        raise RequestError("--calibrate looks for the strengths itself; leave --strengths out")
    amounts = [] if goal else _strengths(strengths, treatment.has_strength, operation)
    loaded = load_model(ModelRef(model_name(model), adapter=adapter), device=device, dtype=dtype)
    given = load_directions(directions, loaded)
    places = parse_sites(sites, loaded.n_layers)
    where = None if act_at is None else parse_sites(act_at, loaded.n_layers)
    switch = None if condition is None else condition_named(condition, given)
    manner = Manner(
        Treatment(operation, schedule, where, switch),
        tuple(Written.parse(text, given, loaded.n_layers) for text in then or ()),
        adapter,
        n,
        seed,
    )
    if goal is None:
        rows = sweep_directions(loaded, asked, given, places, amounts, persona, manner, dose)
    else:
        rows = sweep_calibrated(loaded, asked, given, places, goal, persona, manner, dose)
    value = {"rows": rows} if goal is None else {"goal": calibrate, "rows": rows}
    result(value, as_json, "\n".join(_tables(rows, dose)))


def _strengths(text: str | None, has_strength: bool, operation: str) -> list[float]:
    """Numbers with commas; the defaults for an addition in units of the norm."""
    from persona_probe.errors import RequestError

    if text is None:
        if has_strength and operation not in ("add", "add:norm"):
            raise RequestError(f"{operation} needs --strengths, in its own units: 10,20,45")
        return [float(part) for part in STRENGTHS.split(",")] if has_strength else []
    return _numbers(text)


def _numbers(text: str) -> list[float]:
    from persona_probe.errors import RequestError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--strengths {text!r}: write numbers with commas, 0.5,1,2") from None


def _tables(rows: list[dict[str, Any]], dose: bool) -> Iterator[str]:
    """What was measured, what it cost, and what could not be calibrated."""
    measured = [row for row in rows if "reason" not in row]
    if measured:
        first = measured[0]
        heads = [
            "direction",
            "layer",
            "strength",
            f"refusal, harmful (n {first['n_harmful']})",
            f"refusal, permitted (n {first['n_permitted']})",
        ]
        plain = ["unsteered", "", "", *_refusals(first["unsteered"])]
        yield table(
            heads,
            [plain, *([*_about(row), *_refusals(row)] for row in measured)],
            title="Probability that a reply begins as a refusal, with 95% intervals",
        )
    if measured and dose:
        heads = [
            "direction",
            "layer",
            "strength",
            "|h'|/|h|",
            "outside 99%",
            "KL/token",
            "KL first",
        ]
        yield "\n" + table(
            heads,
            [
                [
                    *_about(row),
                    _estimate(site["norm_ratio"]),
                    _estimate(site["outside"]),
                    _estimate(row["dose"]["per_token_kl"]),
                    _estimate(row["dose"]["first_token_kl"]),
                ]
                for row in measured
                for site in row["dose"]["sites"]
            ],
            title="Dose on neutral text, with 95% intervals",
        )
        reasons = {site["outside"]["reason"] for r in measured for site in r["dose"]["sites"]}
        yield from sorted(reason for reason in reasons if reason)
    for row in rows:
        if said := _said(row):
            yield f"{row['persona']}, layer {row['layer']}: {said}"


def _said(row: dict[str, Any]) -> str | None:
    """What a reader should know of how the strength was found."""
    if "reason" in row:
        return str(row["reason"])
    found = row.get("calibration", {})
    if found.get("fails_at") is not None:
        return f"{found['fails_at']:.4g} fails the guards: {'; '.join(found['reasons'])}"
    if "kl" not in found:
        return None
    text = (
        f"KL {found['kl']['value']:.4g} at this strength, the smallest found within "
        f"{found['tolerance']:.0%} of {found['target']:g} nats"
    )
    rising = "" if found["monotone"] else "; KL does not rise steadily, larger ones may have it too"
    return text + rising


def _about(row: dict[str, Any]) -> list[str]:
    strength = row["strength"]
    amount = row["operation"] if strength is None else f"{strength:.4g}"
    return [row["persona"], str(row["layer"]), amount]


def _refusals(row: dict[str, Any]) -> list[str]:
    return [
        f"{row[f'{name}_probability']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")
        for name in ("refusal", "over_refusal")
        for low, high in [row[f"{name}_interval"]]
    ]


def _estimate(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return "-"
    interval = "" if value["low"] is None else f" [{value['low']:.3g}, {value['high']:.3g}]"
    return f"{value['value']:.3g}{interval} (n {value['n']})"
