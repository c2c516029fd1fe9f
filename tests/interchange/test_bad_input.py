"""What cannot be read or written is refused in one sentence, nothing runs, nothing is written."""

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from persona_probe.errors import RequestError
from tests.interchange.writing import READ_ONLY, TORCH, WRITABLE, export, file_of

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.shape import ModelShape
    from persona_probe.models.site import Site

    Directions = dict[Site, Direction]


def read(name: str, path: Path, shape: "ModelShape | None" = None, **known: Any) -> Any:
    from persona_probe.interchange.format import Asked
    from persona_probe.interchange.importing import import_directions

    return import_directions(path, name, Asked("virtue", shape=shape, **known))


def refusal(name: str, path: Path, shape: "ModelShape | None" = None, **known: Any) -> str:
    """The sentence with which a file is refused; it names the file."""
    with pytest.raises(RequestError) as caught:
        read(name, path, shape, **known)
    said = str(caught.value)
    assert path.name.split("_bias")[0][:4] in said
    assert "\n" not in said
    return said


class Attack:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("how", ["pickle", "torch zip", "old torch"])
@pytest.mark.parametrize("name", TORCH)
def test_a_pickle_disguised_as_pt_is_never_run(name: str, how: str, tmp_path: Path) -> None:
    path, trace = file_of(name, tmp_path), tmp_path / "ran"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Attack(trace)))
    else:
        torch.save(
            {"vector": Attack(trace)}, path, _use_new_zipfile_serialization=how != "old torch"
        )
    assert "is a pickle of Python objects" in refusal(name, path, layer=1)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Attack(trace)))
    assert trace.exists()  # the attack would have worked


@pytest.mark.parametrize("name", WRITABLE)
def test_a_file_cut_short_anywhere_is_refused(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    path = export(name, tmp_path, virtue, [1], shape=llama_shape)
    known = {"layer": 1} if name == "axbench" else {}
    assert read(name, path, llama_shape, **known)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    for file in files:
        content = file.read_bytes()
        for length in range(0, len(content) - 1, max(1, len(content) // 40)):
            file.write_bytes(content[:length])
            with pytest.raises(RequestError, match=file.name):
                read(name, path, llama_shape, **known)
        file.write_bytes(content)


@pytest.mark.parametrize("name", [*WRITABLE, *READ_ONLY])
def test_a_file_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    path = file_of(name, tmp_path)
    said = refusal(name, path, layer=1)
    assert "no such file" in said or "is not a folder" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", WRITABLE)
def test_numbers_that_are_none_are_refused(
    name: str, value: float, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    path = planted(name, value, virtue, llama_shape, tmp_path)
    assert "holds NaN or infinity" in refusal(name, path, llama_shape, layer=told(name))


@pytest.mark.parametrize("name", WRITABLE)
def test_a_zero_vector_is_refused(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    path = planted(name, 0.0, virtue, llama_shape, tmp_path)
    said = refusal(name, path, llama_shape, layer=told(name))
    assert "the vector is zero" in said or "no vector that belongs to a block and is not" in said


def told(name: str) -> int | None:
    return 1 if name == "axbench" else None


def planted(
    name: str, value: float, virtue: "Directions", shape: "ModelShape", folder: Path
) -> Path:
    """A file whose vector is full of one number."""
    path = export(name, folder, virtue, [1], shape=shape)
    if name == "probity":
        held = json.loads(path.read_text())
        held["vector"] = [value] * 32
        path.write_text(json.dumps(held))
    elif path.suffix == ".gguf":
        from persona_probe.interchange.gguf_file import HINT, write_gguf

        write_gguf(path, {1: torch.full((32,), value)}, {HINT: "llama"})
    elif path.is_dir():
        (file,) = path.rglob("layer1.pt")
        torch.save(torch.full((32,), value), file)
    else:
        torch.save(filled(torch.load(path, weights_only=True), value), path)
    return path


def filled(held: Any, value: float) -> Any:
    """The same containers, with every vector that is not zero filled with one number."""
    if isinstance(held, dict):
        return {key: filled(item, value) for key, item in held.items()}
    if not isinstance(held, torch.Tensor):
        return held
    return torch.where(held.any(dim=-1, keepdim=True), value, held)


@pytest.mark.parametrize("name", WRITABLE)
def test_a_vector_of_another_width_than_the_model_is_refused(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    path = export(name, tmp_path, virtue, [1], shape=llama_shape)
    wider = dataclasses.replace(llama_shape, d_model=48)
    said = refusal(name, path, wider, layer=told(name))
    assert "32 dimensions" in said
    assert "tiny-llama has 48" in said


@pytest.mark.parametrize("name", WRITABLE)
def test_a_layer_that_the_model_does_not_have_is_refused(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    from persona_probe.models.site import Site

    deep = dataclasses.replace(llama_shape, n_layers=9)
    at_7 = {Site(7): dataclasses.replace(virtue[Site(1)], site=Site(7))}
    path = export(name, tmp_path, at_7, [7], shape=deep)
    said = refusal(name, path, llama_shape, layer=7 if name == "axbench" else None)
    assert "layers 0 to 2" in said or "rows, expected" in said


@pytest.mark.parametrize(
    ("name", "rows"), [("persona_vectors", 3), ("persona_vectors", 5), ("assistant_axis", 4)]
)
def test_a_matrix_of_another_number_of_rows_is_refused(
    name: str, rows: int, llama_shape: "ModelShape", tmp_path: Path
) -> None:
    path = file_of(name, tmp_path)
    torch.save(torch.ones(rows, 32), path)
    said = refusal(name, path, llama_shape)
    assert f"has {rows} rows, expected {4 if name == 'persona_vectors' else 'one for each'}" in said


MISSHAPEN: list[tuple[str, Any, str]] = [
    ("persona_vectors", torch.ones(32), "expected 2 axes"),
    ("persona_vectors", {"a": torch.ones(4, 32)}, "holds a dict, expected a tensor"),
    ("persona_vectors", torch.ones(4, 32).long(), "of int64"),
    ("assistant_axis", {"metadata": {}}, "has no 'axis'; it has 'metadata'"),
    ("assistant_axis_capping", {"vectors": {}}, "has no 'experiments'"),
    ("assistant_axis_capping", {"vectors": [], "experiments": []}, "holds a list, expected a dict"),
    (
        "assistant_axis_capping",
        {"vectors": {"a": {"vector": torch.ones(3)}}, "experiments": []},
        "vector 'a' has no 'layer'",
    ),
    ("steering_vectors", {"one": torch.ones(3)}, "has the key 'one'"),
    ("steering_vectors", {-1: torch.ones(3)}, "has the key -1"),
    ("steering_vectors", {1: torch.ones(3), 2: torch.ones(4)}, "has 4 dimensions, others"),
    ("steering_vectors", torch.ones(3), "holds a tensor of shape [3], expected a dict"),
    ("lm_eval", {"layers.1": {"action": "add"}}, "has no 'steering_coefficient'"),
    (
        "lm_eval",
        {
            "layers.1.mlp": {
                "action": "add",
                "steering_coefficient": 1.0,
                "steering_vector": torch.ones(3),
            }
        },
        "not the output of a block",
    ),
    (
        "lm_eval",
        {
            "layers.1": {
                "action": "clamp",
                "steering_coefficient": 1.0,
                "steering_vector": torch.ones(3),
            }
        },
        "'clamp', which adds no vector",
    ),
    ("axbench", torch.ones(3), "expected 2 axes"),
    ("axbench", torch.ones(2, 3), "does not say which block it was read at; pass --layer"),
    ("caa", torch.ones(3), "does not say which block it was read at; pass --layer"),
    ("refusal_direction", torch.ones(3), "does not say which block it was read at; pass --layer"),
    ("refusal_direction", torch.ones(5, 4, 3), "5 token positions"),
    ("assistant_axis_roles", {"vector": torch.ones(3, 4)}, "put default.pt"),
    ("assistant_axis_roles", {"role": "poet"}, "has no 'vector'"),
]


@pytest.mark.parametrize(("name", "held", "said"), MISSHAPEN)
def test_another_shape_of_file_is_named(name: str, held: Any, said: str, tmp_path: Path) -> None:
    path = file_of(name, tmp_path)
    torch.save(held, path)
    assert said in refusal(name, path)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([1.0], "holds a list, expected a dict"),
        ({"vector": [1.0]}, "has no 'metadata'"),
        ({"vector": [1.0], "metadata": {}}, "has no 'hook_point'"),
        ({"vector": ["x"], "metadata": {"hook_point": "blocks.1.hook_out"}}, "one list of numbers"),
        ({"vector": [[1.0], [2.0]], "metadata": {"hook_point": "blocks.1.hook_out"}}, "one list"),
        ({"vector": [1.0], "metadata": {"hook_point": "blocks.1.hook_mlp_out"}}, "hook_mlp_out"),
        ({"vector": [1.0], "metadata": {"hook_point": "blocks.0.hook_resid_pre"}}, "embeddings"),
    ],
)
def test_another_shape_of_json_is_named(held: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "virtue.json"
    path.write_text(json.dumps(held))
    assert said in refusal("probity", path)


def gguf(path: Path, architecture: str, texts: dict[str, str], tensors: dict[str, Any]) -> Path:
    """A GGUF file as anybody may write it."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    for key, text in texts.items():
        writer.add_string(key, text)
    for key, tensor in tensors.items():
        writer.add_tensor(key, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("architecture", "hint", "tensors", "said"),
    [
        ("llama", True, {"direction.1": torch.ones(32)}, "its architecture is 'llama'"),
        ("controlvector", False, {"direction.1": torch.ones(32)}, "controlvector.model_hint"),
        ("controlvector", True, {"direction.0": torch.ones(32)}, "--format easysteer"),
        ("controlvector", True, {"direction.x": torch.ones(32)}, "a tensor 'direction.x'"),
        ("controlvector", True, {"direction.1": torch.ones(32).half()}, "of F16"),
        ("controlvector", True, {"direction.1": torch.ones(1, 2, 16)}, "shape [1, 2, 16]"),
        ("controlvector", True, {}, "no vector that belongs to a block"),
    ],
)
def test_what_llama_cpp_or_repeng_reject_is_refused(
    architecture: str, hint: bool, tensors: dict[str, Any], said: str, tmp_path: Path
) -> None:
    texts = {"controlvector.model_hint": "llama"} if hint else {}
    assert said in refusal("gguf", gguf(tmp_path / "virtue.gguf", architecture, texts, tensors))


def test_block_0_of_easysteer_is_the_first_block(tmp_path: Path) -> None:
    from persona_probe.models.site import Site

    texts = {"controlvector.model_hint": "qwen2", "controlvector.method": "diffmean"}
    path = gguf(tmp_path / "v.gguf", "controlvector", texts, {"direction.0": torch.ones(32)})
    direction = read("easysteer", path)["virtue"][Site(0)]
    assert direction.finder == "diffmean"


def export_refused(name: str, folder: Path, directions: "Directions", **options: Any) -> str:
    layers = [site.layer for site in directions]
    with pytest.raises(RequestError) as caught:
        export(name, folder, directions, layers, **options)
    assert list(folder.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_block_0_cannot_be_written_to_gguf(virtue: "Directions", tmp_path: Path) -> None:
    assert "cannot express block 0: llama.cpp" in export_refused("gguf", tmp_path, virtue)


@pytest.mark.parametrize("name", ["lm_eval", "axbench", "probity"])
def test_several_layers_are_refused_where_there_is_room_for_one(
    name: str, virtue: "Directions", tmp_path: Path
) -> None:
    assert f"{name} holds one vector and 3 layers" in export_refused(name, tmp_path, virtue)


@pytest.mark.parametrize("name", ["persona_vectors", "assistant_axis"])
def test_a_row_for_every_block_needs_the_model(
    name: str, virtue: "Directions", tmp_path: Path
) -> None:
    assert "name the model with --model" in export_refused(name, tmp_path, virtue)


@pytest.mark.parametrize("name", WRITABLE)
def test_strengths_and_models_that_make_no_sense_write_nothing(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    from persona_probe.models.site import Site

    one = {Site(1): virtue[Site(1)]}
    normless = {Site(1): dataclasses.replace(virtue[Site(1)], norm=float("nan"))}
    narrow = dataclasses.replace(llama_shape, d_model=16)
    shallow = dataclasses.replace(llama_shape, n_layers=1)
    if name != "assistant_axis_capping":  # a cap may lie at 0
        said = export_refused(name, tmp_path, one, strength=0.0, shape=llama_shape)
        assert "adds nothing" in said
    cases: list[tuple[Directions, dict[str, Any], str]] = [
        (one, {"strength": float("inf")}, "must be finite"),
        (normless, {"units": "norm"}, "has norm nan"),
        (one, {"shape": narrow}, "has 32 dimensions, tiny-llama has 16"),
        (one, {"shape": shallow}, "has layers 0 to 0"),
    ]
    for directions, options, expected in cases:
        said = export_refused(name, tmp_path, directions, **{"shape": llama_shape, **options})
        assert expected in said


@pytest.mark.parametrize("name", READ_ONLY)
def test_import_only_formats_say_so(name: str, virtue: "Directions", tmp_path: Path) -> None:
    assert f"{name} is import only; write one of gguf" in export_refused(name, tmp_path, virtue)


def test_a_cap_in_gaps_needs_a_midpoint(virtue: "Directions", tmp_path: Path) -> None:
    from persona_probe.models.site import Site

    aimless = {Site(1): dataclasses.replace(virtue[Site(1)], midpoint=float("nan"))}
    assert "has no midpoint" in export_refused("assistant_axis_capping", tmp_path, aimless)


def test_a_full_folder_is_not_written_into(
    virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    path = export("trait_interp", tmp_path, virtue, [1], shape=llama_shape)
    before = sorted(path.rglob("*"))
    with pytest.raises(RequestError, match="is not an empty folder"):
        export("trait_interp", tmp_path, virtue, [2], shape=llama_shape)
    assert sorted(path.rglob("*")) == before


def test_another_suffix_is_refused(virtue: "Directions", tmp_path: Path) -> None:
    from persona_probe.interchange.exporting import export_directions

    for name in ("gguf", "lm_eval", "axbench", "probity"):
        with pytest.raises(RequestError, match=rf"for {name} must end in [.\w]+"):
            export_directions(virtue, name, tmp_path / "virtue.bin")
    assert list(tmp_path.iterdir()) == []


def test_the_layer_told_twice_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "vec_layer_3_model.pt"
    torch.save(torch.ones(8), path)
    assert [site.layer for site in read("caa", path, layer=3)["virtue"]] == [3]
    assert "belongs to layer 3 and --layer says 2" in refusal("caa", path, layer=2)


def test_the_embeddings_have_no_site(tmp_path: Path) -> None:
    torch.save(torch.ones(8).double(), tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 0}')
    assert "there is no site" in refusal("refusal_direction", tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1}')
    with pytest.raises(RequestError, match="has no 'layer'"):
        read("refusal_direction", tmp_path / "direction.pt")


def test_trait_interp_of_another_component_is_refused(
    virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    path = export("trait_interp", tmp_path, virtue, [1], shape=llama_shape)
    (metadata,) = path.rglob("metadata.json")
    about = json.loads(metadata.read_text())
    metadata.write_text(json.dumps(about | {"component": "attn_out"}))
    assert "'attn_out', which are not of the residual" in refusal("trait_interp", path)
    metadata.write_text(json.dumps({"model": "m"}))
    with pytest.raises(RequestError, match="has no 'layers'"):
        read("trait_interp", path)
