"""To the hub and back, by way of a folder: no network."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import PersonaProbeError, RequestError, SiteMismatchError


class FolderHub:
    """A hub of one folder: what `HfApi` is asked for, done with `shutil`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
        assert private is None
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hub/{repo_id}"

    def upload_folder(
        self, *, repo_id: str, folder_path: str | Path, commit_message: str | None
    ) -> Any:
        assert commit_message
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)


@pytest.fixture
def directions(make_direction: Any) -> Any:
    from persona_probe.directions.direction_set import Directions

    several = [make_direction(layer=layer, seed=layer) for layer in (0, 1)]
    return Directions({"virtue": {direction.site: direction for direction in several}})


def test_what_was_pushed_comes_back(directions: Any, tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import Directions

    where = directions.push_to_hub("me/virtue", api=FolderHub(tmp_path), licence="MIT")
    assert where == "https://hub/me/virtue"
    there = tmp_path / "me" / "virtue"
    assert sorted(path.name for path in there.iterdir()) == ["README.md", "virtue.safetensors"]
    assert "license: mit" in (there / "README.md").read_text()
    back = Directions.from_pretrained(there)
    for site, direction in directions["virtue"].items():
        assert torch.equal(back["virtue"][site].raw, direction.raw)
        assert back["virtue"][site].licence == "MIT"


def test_the_library_has_the_calls_that_are_made() -> None:
    import inspect

    from huggingface_hub import HfApi

    from persona_probe.directions.hub import HubApi

    assert isinstance(HfApi(), HubApi)
    asked = {"create_repo": {"private", "exist_ok"},
             "upload_folder": {"repo_id", "folder_path", "commit_message"}}  # fmt: skip
    for name, arguments in asked.items():
        assert arguments <= set(inspect.signature(getattr(HfApi, name)).parameters)


def test_offline_is_said_in_one_sentence(directions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    from persona_probe.directions.direction_set import Directions

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for act, said in (
        (lambda: directions.push_to_hub("me/virtue"), "cannot push the directions to 'me/virtue'"),
        (
            lambda: Directions.from_pretrained("me/virtue"),
            "cannot fetch the directions 'me/virtue'",
        ),
    ):
        with pytest.raises(PersonaProbeError, match=said) as caught:
            act()
        assert "this machine is offline" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_said_in_one_sentence(
    directions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loopback port at which nobody answers."""
    import socket

    from huggingface_hub import HfApi

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = HfApi(endpoint=f"http://127.0.0.1:{port}", token=False)
    with pytest.raises(
        PersonaProbeError, match="cannot push the directions to 'me/virtue'"
    ) as said:
        directions.push_to_hub("me/virtue", api=api)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["three/parts/here", "a b", "-"])
def test_what_cannot_be_a_repository_is_refused(name: str, directions: Any) -> None:
    from persona_probe.directions.hub import from_pretrained

    with pytest.raises(RequestError, match="cannot fetch the directions") as caught:
        from_pretrained(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match=r"no such folder: \./nowhere"):
        from_pretrained("./nowhere")


def test_only_data_is_ever_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    from persona_probe.directions.hub import from_pretrained

    asked: dict[str, Any] = {}

    def fetch(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(RequestError, match="holds no directions"):
        from_pretrained("me/virtue", revision="abc")
    assert asked == {
        "repo_id": "me/virtue",
        "revision": "abc",
        "allow_patterns": ["*.safetensors", "README.md"],
    }


def test_another_model_is_refused_here_too(directions: Any, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from persona_probe.directions.direction_set import Directions

    directions.save(tmp_path)
    space = {"n_layers": 3, "model_hash": "x", "chat_template_hash": "none"}
    with pytest.raises(SiteMismatchError, match="has 32 dimensions"):
        Directions.from_pretrained(tmp_path, model=SimpleNamespace(d_model=64, **space))
