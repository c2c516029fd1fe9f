"""Files appear whole or not at all."""

from pathlib import Path

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.files import (
    make_folder,
    read_json,
    read_jsonl,
    read_tensors,
    whole,
    write_json,
    write_jsonl,
    write_tensors,
)


def test_an_exception_while_writing_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"old": 1})

    def write_half() -> None:
        with whole(path) as temporary:
            temporary.write_text("half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_half()
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_lines_round_trip_unicode_and_skip_blank_lines(tmp_path: Path) -> None:
    rows = [{"text": "naïve – “quoted”\n\u2028\x85"}, {"n": 3}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    path.write_text(path.read_text() + "\n")
    assert read_jsonl(path) == rows


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": \n')
    with pytest.raises(RequestError, match=r"rows\.jsonl, line 2: not JSON"):
        read_jsonl(path)


def test_not_a_number_is_refused_rather_than_written_as_invalid_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_tensors_round_trip_with_their_header(tmp_path: Path) -> None:
    tensor = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    path = write_tensors(tmp_path / "v.safetensors", {"a": tensor.T}, {"about": "{}"})
    tensors, header = read_tensors(path)
    assert torch.equal(tensors["a"], tensor.T)
    assert header == {"about": "{}"}


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "v.pt")
    with pytest.raises(RequestError, match="not a safetensors file"):
        read_tensors(tmp_path / "v.pt")


@pytest.mark.parametrize("read", [read_json, read_jsonl, read_tensors])
def test_a_missing_file_is_named(read: object, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no such file: .*gone"):
        read(tmp_path / "gone")  # type: ignore[operator]


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    in_the_way = write_json(tmp_path / "a.json", {})
    with pytest.raises(RequestError, match=r"cannot make the folder .*a\.json.*choose another"):
        write_json(in_the_way / "b.json", {})
    with pytest.raises(RequestError, match=r"cannot make the folder"):
        make_folder(in_the_way)
    with pytest.raises(RequestError, match=r"cannot write .*folder"):
        write_json(make_folder(tmp_path / "folder"), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "folder"]
