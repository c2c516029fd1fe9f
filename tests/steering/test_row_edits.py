"""Rows of one batch, each with its own interventions, against one sequence at a time."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.models.loading import load_model
from persona_probe.models.packing import pack, packed_attention
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add, Clamp, Operation, Patch, Rotate, Subspace
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.condition import Condition
from persona_probe.steering.generation import generate
from persona_probe.steering.operation import HasStrength
from persona_probe.steering.prefill import token_positions
from persona_probe.steering.row_edits import RowEdits
from persona_probe.steering.schedule import schedule_named
from tests.steering.slow import steered_logits

SCHEDULES = [
    "prompt", "last_prompt_token", "response", "both", "first:2", "from:2", "linear:3",
    "exponential:1.5", "prompt/first:3", "both/linear:8", "both/from:4",
]  # fmt: skip
TEXTS = [(9, 4), (5, 6), (7, 3)]  # tokens of prompt and reply
Row = tuple[int, tuple[Intervention, ...]]
Layout = Callable[[Any, Sequence[list[int]], Sequence[int], Sequence[Row]], list[torch.Tensor]]


def texts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(3, 300, (p + r,), generator=generator).tolist() for p, r in TEXTS]


def operations(make_direction: Any) -> dict[str, Operation]:
    generator = torch.Generator().manual_seed(5)
    others = tuple(make_direction(layer=1, seed=s) for s in (21, 22))
    values = {
        tuple(ids): {Site(s): torch.randn(len(ids), generator=generator) for s in (0, 1, 2)}
        for ids in texts()
    }
    unit = make_direction(layer=1, seed=20).unit
    return {
        "add": Add(1.0),
        "add gaps": Add(-0.7, "gap"),
        "ablate": Ablate(),
        "ablate to levels": Ablate({Site(0): 1.0, Site(1): -1.0, Site(2): 0.5}),
        "clamp": Clamp(-0.1, 0.1),
        "clamp gaps": Clamp(low=0.2, units="gap"),
        "rotate": Rotate(40.0),
        "rotate away": Rotate(-0.5, "share"),
        "ablate span": Subspace(others),
        "shift in span": Subspace(others, 1.0, torch.randn(32, generator=generator)),
        "patch": Patch(unit, values),
    }


@pytest.fixture
def rows(make_direction: Any) -> list[Row]:
    """Every operation under every schedule that it can have, on every text; and several at once."""
    direction, found = make_direction(layer=1, seed=20), [()]
    several = operations(make_direction)
    for operation in several.values():
        for number, schedule in enumerate(SCHEDULES):
            if schedule_named(schedule).fades and not isinstance(operation, HasStrength):
                continue
            sites = [None, (Site(0), Site(2))][number % 2]
            found.append((Intervention(direction, operation, schedule, sites),))
    other = Intervention(make_direction(layer=0, seed=3), Add(0.5), "both/exponential:4", None)
    names = list(several)
    for first, second in zip(names, names[1:] + names[:1], strict=True):
        pair = [Intervention(direction, several[n], "both") for n in (first, second)]
        found += [(pair[0], other, pair[1]), (pair[1], pair[0])]
    return [(n % len(TEXTS), interventions) for n, interventions in enumerate(found)]


def edits_of(model: Any, ids: Sequence[list[int]], rows: Sequence[Row]) -> RowEdits:
    return RowEdits(model, [i for _, i in rows], [ids[text] for text, _ in rows])


def with_a_cache(
    model: Any, ids: Sequence[list[int]], prompts: Sequence[int], rows: Sequence[Row]
) -> list[torch.Tensor]:
    """Prompts padded on the left, then the reply token by token; rows leave when they end."""
    batch = model.pad([ids[text][: prompts[text]] for text, _ in rows], "left")
    lengths = torch.tensor([prompts[text] for text, _ in rows])
    edits, present = edits_of(model, ids, rows), torch.arange(len(rows))
    found: list[list[torch.Tensor]] = [[] for _ in rows]
    mask, positions, cache, new = batch.attention_mask, token_positions(batch), None, batch.ids
    with torch.no_grad(), model.hooks(edits.hooks):
        for step in range(99):
            edits.place(positions, lengths)
            logits, cache = model.decode_step(new, mask, positions.clamp_min(0), cache)
            for row, values in zip(present.tolist(), logits, strict=True):
                found[row].append(values)
            going = torch.tensor(
                [len(ids[rows[r][0]]) > lengths[k] + step for k, r in enumerate(present.tolist())]
            )
            if not going.any():
                break
            stay = going.nonzero()[:, 0]
            edits.keep(stay, len(present))
            cache.batch_select_indices(stay)
            present, lengths, mask = present[stay], lengths[stay], mask[stay]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            new = torch.tensor(
                [[ids[rows[r][0]][int(n) + step]] for r, n in zip(present, lengths, strict=True)]
            )
            positions = lengths[:, None] + step
    return [torch.stack(several) for several in found]


def padded(side: Any) -> Layout:
    """Whole sequences at once, prompt and given reply."""

    def run(model: Any, ids: Any, prompts: Any, rows: Any) -> list[torch.Tensor]:
        batch = model.pad([ids[text] for text, _ in rows], side)
        positions, edits = token_positions(batch), edits_of(model, ids, rows)
        edits.place(positions, torch.tensor([prompts[text] for text, _ in rows]))
        with torch.no_grad(), model.hooks(edits.hooks):
            logits = model.logits(batch.ids, batch.attention_mask, batch.position_ids)
        return [
            values[where >= prompts[text] - 1]
            for values, where, (text, _) in zip(logits, positions, rows, strict=True)
        ]

    return run


def packed(model: Any, ids: Any, prompts: Any, rows: Any) -> list[torch.Tensor]:
    """All sequences end to end in one row of the model's batch."""
    batch = pack([ids[text] for text, _ in rows])
    width = max(batch.lengths)
    lengths, starts = torch.tensor(batch.lengths)[:, None], torch.tensor(batch.starts)[:, None]
    positions = torch.arange(width).expand(len(rows), -1)
    columns = (starts + positions).clamp_max(batch.ids.shape[1] - 1)
    edits = edits_of(model, ids, rows)
    edits.place(
        torch.where(positions < lengths, positions, -1),
        torch.tensor([prompts[text] for text, _ in rows]),
        at=(torch.zeros_like(columns), columns),
    )
    with (
        torch.no_grad(),
        packed_attention(model.network, batch.lengths),
        model.hooks(edits.hooks),
    ):
        logits = model.network(input_ids=batch.ids, position_ids=batch.position_ids).logits[0]
    return [
        logits[start + prompts[text] - 1 : start + len(ids[text])]
        for start, (text, _) in zip(batch.starts, rows, strict=True)
    ]


LAYOUTS: dict[str, Layout] = {
    "cache": with_a_cache,
    "left": padded("left"),
    "right": padded("right"),
    "packed": packed,
}


def assert_as_slow(model: Any, rows: Sequence[Row], found: Sequence[torch.Tensor]) -> None:
    ids, n_changed = texts(), 0
    plain = [steered_logits(model, row, n, ()) for row, (n, _) in zip(ids, TEXTS, strict=True)]
    for (text, interventions), logits in zip(rows, found, strict=True):
        n = TEXTS[text][0]
        expected = steered_logits(model, ids[text], n, interventions)
        torch.testing.assert_close(logits, expected[n - 1 :], atol=2e-4, rtol=0, msg=interventions)
        n_changed += bool((expected - plain[text]).abs().max() > 0.01)
    assert n_changed > 0.9 * (len(rows) - 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_operation_and_schedule_in_one_batch_equals_a_slow_reference(
    layout: str, tiny_model: Any, rows: list[Row]
) -> None:
    found = LAYOUTS[layout](tiny_model, texts(), [n for n, _ in TEXTS], rows)
    assert_as_slow(tiny_model, rows, found)


def test_every_architecture_is_edited_alike(tiny_folders: Path, rows: list[Row]) -> None:
    model, some = load_model(ModelRef(str(tiny_folders))), rows[::7]
    assert_as_slow(model, some, with_a_cache(model, texts(), [n for n, _ in TEXTS], some))


@pytest.mark.parametrize("layout", ["cache", "right"])
def test_a_row_has_the_same_numbers_alone_and_among_others(
    layout: str, tiny_model: Any, rows: list[Row]
) -> None:
    prompts = [n for n, _ in TEXTS]
    together = LAYOUTS[layout](tiny_model, texts(), prompts, rows)
    for number in range(1, len(rows), 9):
        (alone,) = LAYOUTS[layout](tiny_model, texts(), prompts, [rows[number]])
        torch.testing.assert_close(alone, together[number], atol=1e-5, rtol=0)
        assert torch.equal(alone.argmax(dim=-1), together[number].argmax(dim=-1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_settings_of_nothing_give_the_unsteered_model_bit_for_bit(
    layout: str, tiny_model: Any, make_direction: Any
) -> None:
    direction = make_direction(layer=1, seed=20)
    closed = Condition(make_direction(layer=0, seed=4), math.inf)
    nothings = [
        Intervention(direction, operation, schedule, tuple(map(Site, range(3))), condition)
        for schedule in ("prompt", "response", "both")
        for operation, condition in [
            (Add(0.0), None),
            (Add(0.0, "gap"), None),
            (Clamp(), None),
            (Rotate(0.0), None),
            (Rotate(0.0, "share"), None),
            (Subspace((make_direction(seed=21),), 1.0), None),
            (Subspace((make_direction(seed=21),), 1.0, torch.zeros(32)), None),
        ]
    ]
    nothings.append(Intervention(direction, Add(3.0), "both", None, closed))
    nothings.append(Intervention(direction, Add(0.0), "both/linear:5"))
    prompts = [n for n, _ in TEXTS]
    nothing: list[Row] = [(n % 3, (i,)) for n, i in enumerate(nothings)]
    plain: list[Row] = [(text, ()) for text, _ in nothing]
    with_hooks = LAYOUTS[layout](tiny_model, texts(), prompts, nothing)
    without = LAYOUTS[layout](tiny_model, texts(), prompts, plain)
    for one, other in zip(with_hooks, without, strict=True):
        assert torch.equal(one, other)


def conditions(model: Any, make_direction: Any) -> list[Condition]:
    """Switches that are on for some of the texts and off for others."""
    found = []
    direction = make_direction(layer=0, seed=8)
    read = [
        Patch.read(model, texts(), direction).projections[tuple(ids)][Site(0)][:n]
        for ids, (n, _) in zip(texts(), TEXTS, strict=True)
    ]
    last, mean = sorted(float(p[-1]) for p in read), sorted(float(p.mean()) for p in read)
    for between in (0, 1):
        middle = (last[between] + last[between + 1]) / 2
        found.append(Condition(direction, middle, units="raw"))
        middle = (mean[between] + mean[between + 1]) / 2
        found.append(Condition(direction, middle / direction.gap, at="prompt_mean"))
        found.append(Condition(-direction, -middle, at="prompt_mean", units="raw"))
    return found


@pytest.fixture
def switched(tiny_model: Any, make_direction: Any) -> list[Row]:
    """Conditional interventions alone, with others before and after them, at the same site too."""
    direction = make_direction(layer=1, seed=20)
    before = Intervention(make_direction(layer=0, seed=9), Add(0.3), "both")
    found: list[Row] = []
    for condition in conditions(tiny_model, make_direction):
        for operation, schedule in [
            (Add(1.0), "both"), (Ablate(1.0), "response"), (Rotate(30.0), "linear:4"),
        ]:  # fmt: skip
            for sites in ((Site(0),), (Site(0), Site(1), Site(2))):
                conditional = Intervention(direction, operation, schedule, sites, condition)
                always = dataclasses.replace(conditional, condition=None, operation=Add(-0.5))
                always = dataclasses.replace(always, schedule="both")
                several = [(conditional,), (before, conditional), (conditional, always)]
                found += [(n % 3, row) for n, row in enumerate(several, start=len(found))]
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_condition_is_decided_once_per_row_on_its_prompt(
    layout: str, tiny_model: Any, switched: list[Row]
) -> None:
    ids, prompts = texts(), [n for n, _ in TEXTS]
    found = LAYOUTS[layout](tiny_model, ids, prompts, switched)
    n_on = 0
    for (text, interventions), logits in zip(switched, found, strict=True):
        expected = steered_logits(tiny_model, ids[text], prompts[text], interventions)
        torch.testing.assert_close(logits, expected[prompts[text] - 1 :], atol=2e-4, rtol=0)
        off = [i for i in interventions if i.condition is None]
        without = steered_logits(tiny_model, ids[text], prompts[text], off)
        n_on += bool((without - expected).abs().max() > 1e-3)
    assert 0.25 < n_on / len(switched) < 0.75


def test_generation_takes_conditions_also_where_arms_share_their_prompts(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    """Greedy tokens of conditional arms are those of the same arms without hooks in a batch."""
    direction, reader = make_direction(layer=1, seed=20), make_direction(layer=1, seed=8)
    prompts = [tiny_model.encode(c, add_generation_prompt=True).ids for c in conversations]
    read = Patch.read(tiny_model, prompts, reader).projections
    last = sorted(float(values[Site(1)][-1]) for values in read.values())
    switch = Condition(reader, (last[1] + last[2]) / 2, units="raw")
    mean = Condition(reader, 0.0, at="prompt_mean", units="raw")
    arms = [
        Arm("plain"),
        Arm("always", (Intervention(direction, Add(1.5), "response"),)),
        Arm("last", (Intervention(direction, Add(1.5), "response", None, switch),)),
        Arm("mean", (Intervention(direction, Add(1.5), "response", None, mean),)),
        Arm("prompt", (Intervention(direction, Add(1.5), "both", None, switch),)),
    ]
    assert [arm.spares_the_prompt for arm in arms] == [True, True, True, False, False]
    found = {
        (c.arm, c.conversation_id): c.token_ids
        for c in generate(tiny_model, conversations, arms, 6)
    }
    by_name = {arm.name: arm for arm in arms}
    for (name, number), tokens in found.items():
        ids = list(prompts[int(number[1:])])
        n = len(ids)
        for token in tokens:
            logits = steered_logits(tiny_model, ids, n, by_name[name].interventions)
            assert int(logits[-1].argmax()) == token, name
            ids.append(token)
    on = [found["last", c.id] == found["always", c.id] for c in conversations]
    assert sum(on) == 2
    assert all(
        found["last", c.id] == found["plain", c.id]
        for c, is_on in zip(conversations, on, strict=True)
        if not is_on
    )


def test_a_patch_from_another_model_gives_its_projections(
    tiny_model: Any, make_direction: Any
) -> None:
    direction, sites = make_direction(layer=1, seed=20), (Site(0), Site(2))
    patch = Patch.read(tiny_model, texts(), direction, sites, adapter="tuned")
    own = Patch.read(tiny_model, texts(), direction, sites)
    rows: list[Row] = [(t, (Intervention(direction, patch, "both", sites),)) for t in range(3)]
    edits = edits_of(tiny_model, texts(), rows)
    batch = tiny_model.pad(texts(), "right")
    edits.place(token_positions(batch), torch.tensor([n for n, _ in TEXTS]))
    with tiny_model.hooks(edits.hooks):
        found = Patch.read(tiny_model, texts(), direction, sites)
    for ids in map(tuple, texts()):
        for site in sites:
            wanted, before = (p.projections[ids][site] for p in (patch, own))
            assert (wanted - before).abs().max() > 0.05
            torch.testing.assert_close(found.projections[ids][site], wanted, atol=1e-4, rtol=0)
    # A model's own projections change nothing but rounding.
    rows = [(t, (Intervention(direction, own, "both", sites),)) for t in range(3)]
    prompts = [n for n, _ in TEXTS]
    same = padded("right")(tiny_model, texts(), prompts, rows)
    plain = padded("right")(tiny_model, texts(), prompts, [(t, ()) for t in range(3)])
    for one, other in zip(same, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_patch_serves_the_beginnings_of_its_texts_and_no_others(
    tiny_model: Any, make_direction: Any
) -> None:
    direction, (text, *_) = make_direction(layer=1, seed=20), texts()
    patch = Patch.read(tiny_model, [text], direction)
    whole = patch.token_parameters(direction, Site(1), text)
    assert torch.equal(patch.token_parameters(direction, Site(1), text[:4]), whole[:4])
    assert torch.equal(patch.token_parameters(direction, Site(1), [*text, 7]), whole)
    for ids, site, along, words in [
        ([9, 9, 9], Site(1), direction, "neither one of them nor its beginning"),
        (text, Site(2), direction, "known at layers 1"),
        (text, Site(1), make_direction(seed=1), "another vector"),
    ]:
        with pytest.raises(RequestError, match=words):
            patch.token_parameters(along, site, ids)
    intervention = Intervention(direction, patch, "both")
    with pytest.raises(RequestError, match="`sequences`"):
        RowEdits(tiny_model, [(intervention,)])
    with pytest.raises(RequestError, match="1 sequences were given for 2 rows"):
        RowEdits(tiny_model, [(), ()], [text])
    edits = RowEdits(tiny_model, [(intervention,)], [text])
    with pytest.raises(RequestError, match=rf"knows the first {len(text)} tokens .* reaches token"):
        edits.place(torch.tensor([[len(text)]]), torch.tensor([5]))


def test_a_prompt_that_was_not_read_decides_nothing(tiny_model: Any, make_direction: Any) -> None:
    direction = make_direction()
    for at, words in [("last_prompt_token", "not been read"), ("prompt_mean", "in one pass")]:
        condition = Condition(direction, at=at)
        edits = RowEdits(
            tiny_model, [(Intervention(direction, Add(1.0), "both", None, condition),)]
        )
        positions = torch.tensor([[5]] if at == "last_prompt_token" else [[3, 4]])
        with pytest.raises(RequestError, match=words):
            edits.place(positions, torch.tensor([5]))


def test_rest_edits_nothing(tiny_model: Any, make_direction: Any) -> None:
    batch = tiny_model.pad(texts(), "right")
    edits = RowEdits(tiny_model, [(Intervention(make_direction(), Add(1.0), "both"),)] * 3)
    plain = tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
    edits.place(token_positions(batch), torch.tensor([n for n, _ in TEXTS]))
    with tiny_model.hooks(edits.hooks):
        steered = tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
        edits.rest()
        rested = tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
    assert not torch.equal(steered, plain)
    assert torch.equal(rested, plain)
