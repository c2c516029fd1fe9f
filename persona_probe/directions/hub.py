"""Directions on the Hugging Face hub: the same files in a repository."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast, runtime_checkable

from persona_probe.directions.direction import ResidualSpace
from persona_probe.directions.direction_set import (
    Directions,
    DirectionSet,
    load_directions,
    save_directions,
)
from persona_probe.errors import PersonaProbeError, RequestError

FILES = ("*.safetensors", "README.md")  # all that is ever fetched: nothing that could be code


@runtime_checkable
class HubApi(Protocol):
    """The two calls that publishing needs; `huggingface_hub.HfApi` has them."""

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any: ...
    def upload_folder(
        self, *, repo_id: str, folder_path: str | Path, commit_message: str | None
    ) -> Any: ...


def push_to_hub(
    directions: DirectionSet,
    repo: str,
    *,
    private: bool | None = None,
    message: str = "Upload persona directions",
    api: HubApi | None = None,
    **options: Any,
) -> str:
    """Publish directions with their card.

    Args:
        directions: persona → site → direction.
        repo: "owner/name"; created if it does not exist.
        private: whether a new repository is private; `None` is the account's default.
        message: of the commit.
        api: what talks to the hub; `huggingface_hub.HfApi()` if not given, with the account that
            its own command line is logged in to.
        options: of `save_directions`: licence, validations.

    Returns:
        Where it is now.

    Raises:
        PersonaProbeError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    api = api or HfApi()
    with TemporaryDirectory() as folder:
        save_directions(directions, Path(folder), **options)
        with _one_sentence(f"cannot push the directions to {repo!r}"):
            created = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    return str(created)


def from_pretrained(
    repo: str | Path,
    *,
    revision: str | None = None,
    model: ResidualSpace | None = None,
    allow_other_model: bool = False,
) -> Directions:
    """Read directions from a folder, or from a repository of the hub.

    Args:
        repo: a folder that exists, or "owner/name".
        revision: branch, tag or commit of the repository; pin a commit in anything published.
        model: if given, every direction must fit it.
        allow_other_model: accept directions of another model of the same shape.

    Raises:
        PersonaProbeError: the hub cannot be reached, or has no such repository.
        RequestError: what is there is no set of directions; see `load_directions`.
    """
    folder = Path(repo)
    if not folder.exists():
        if str(repo).startswith((".", "/", "~", os.sep)):
            raise RequestError(f"no such folder: {repo}")
        from huggingface_hub import snapshot_download

        with _one_sentence(f"cannot fetch the directions {str(repo)!r}"):
            fetched = snapshot_download(str(repo), revision=revision, allow_patterns=list(FILES))
        folder = Path(fetched)
    return load_directions(folder, model, allow_other_model)


@contextmanager
def _one_sentence(what: str) -> Iterator[None]:
    """What the hub's library raises, as one sentence with the cure."""
    from huggingface_hub import errors

    # The library's HTTP client has had several names; its errors are what these derive from.
    unreachable = cast(tuple[type[Exception], ...], errors.HfHubHTTPError.__bases__)
    try:
        yield
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        raise PersonaProbeError(
            f"{what}: this machine is offline; unset HF_HUB_OFFLINE or connect it, or use a folder"
        ) from None
    except errors.HFValidationError as error:
        raise RequestError(f"{what}: {_first_line(error)}") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise RequestError(
            f"{what}: the hub has no such repository or revision, or not for this account"
        ) from None
    except unreachable as error:
        raise PersonaProbeError(
            f"{what}: {_first_line(error)}; log in with `hf auth login`, or use a folder"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".;: ") if lines else type(error).__name__
