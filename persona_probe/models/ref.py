"""Which weights are meant, before anything is loaded."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from persona_probe.errors import RequestError

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class ModelRef:
    """A model by name: a folder or a hub repository, and optionally a LoRA adapter on it.

    "Before" and "after" a finetune are two references that differ in `adapter`.

    Attributes:
        name: folder, or hub name such as "Qwen/Qwen2.5-1.5B".
        revision: hub commit, branch or tag; folders have none.
        adapter: an adapter's name; see `adapter_source`. `None` is the bare weights.
    """

    name: str
    revision: str | None = None
    adapter: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder, or `None` for a hub name.

        Raises:
            RequestError: the name has the shape of a path, and there is no such folder.
        """
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path
        if path.exists():
            raise RequestError(f"{self.name} is a file; a model is a folder or a hub name")
        if not is_hub_name(self.name):
            raise RequestError(f"no such folder: {self.name}")
        return None

    @property
    def label(self) -> str:
        """The name that results carry: a folder's last part, so that no machine's paths leak."""
        path = Path(self.name).expanduser()
        return path.resolve().name if path.is_dir() else self.name

    @property
    def slug(self) -> str:
        """A file name: label, revision and adapter, with nothing but letters, digits and `._+-`."""
        parts = [self.label, self.revision, self.adapter and Path(self.adapter).name]
        return "+".join(re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts if part)

    def with_adapter(self, adapter: str | None) -> "ModelRef":
        """The same weights with another adapter."""
        return replace(self, adapter=adapter)

    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that lie in the folder `adapters` inside the model's folder."""
        folder = self.folder
        found = folder.glob(f"adapters/*/{ADAPTER_CONFIG}") if folder else ()
        return tuple(sorted(config.parent.name for config in found))

    def adapter_source(self, adapter: str) -> Path | str:
        """Where an adapter lies: `<folder>/adapters/<name>`, else a folder, else a hub name.

        Raises:
            RequestError: it is none of them; the message lists the adapters that are there.
        """
        inside = [self.folder / "adapters" / adapter] if self.folder else []
        for path in (*inside, Path(adapter).expanduser()):
            if (path / ADAPTER_CONFIG).is_file():
                return path.resolve()
        if "/" in adapter and is_hub_name(adapter) and not Path(adapter).exists():
            return adapter
        choices = ", ".join(self.adapters()) or "none"
        raise RequestError(
            f"{self.label} has no adapter {adapter!r} and there is no folder of that name with "
            f"an {ADAPTER_CONFIG}; its adapters are: {choices}"
        )


def is_hub_name(name: str) -> bool:
    """Whether a name has the shape `repository` or `owner/repository`, which paths rarely have."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None
