"""Where the numbers of an `ActivationSet` are: in memory, or in the shards of a store."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.errors import PersonaProbeError, RequestError, SiteMismatchError
from persona_probe.models.site import Site


class Columns(ABC):
    """One float32 matrix [example, d_model] per site, read when it is asked for.

    Attributes:
        sites: where the residual stream was read.
    """

    sites: tuple[Site, ...]

    @property
    @abstractmethod
    def d_model(self) -> int:
        """Width of the residual stream."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def column(self, site: Site) -> Float[Tensor, "example d_model"]:
        """All examples at one site; nothing of the other sites is read."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "example site d_model"]:
        """Everything, in memory."""

    @abstractmethod
    def take(self, rows: Int[Tensor, " taken"]) -> "Columns":
        """Some of the examples, in the order given."""

    def index(self, site: Site) -> int:
        """Place of a site.

        Raises:
            SiteMismatchError: nothing was captured there.
        """
        if site not in self.sites:
            there = ", ".join(str(s.layer) for s in self.sites)
            raise SiteMismatchError(f"nothing was captured at {site}, only at layers {there}")
        return self.sites.index(site)


@dataclass(frozen=True, eq=False)
class InMemory(Columns):
    """One tensor."""

    values: Float[Tensor, "example site d_model"]
    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if len(self.sites) != self.values.shape[1]:
            raise RequestError(
                f"activations at {self.values.shape[1]} sites, but {len(self.sites)} sites named"
            )

    @property
    def d_model(self) -> int:
        return self.values.shape[2]

    def __len__(self) -> int:
        return len(self.values)

    def column(self, site: Site) -> Float[Tensor, "example d_model"]:
        return self.values[:, self.index(site)]

    def dense(self) -> Float[Tensor, "example site d_model"]:
        return self.values

    def take(self, rows: Int[Tensor, " taken"]) -> "InMemory":
        return replace(self, values=self.values[rows])


@dataclass(frozen=True, eq=False)
class Shard(Columns):
    """One file of a store, memory-mapped while it is read.

    Attributes:
        path: a safetensors file with one tensor `site_{layer}` [size, width] per site.
        size: rows of the file.
        width: of the residual stream.
        sites: where the residual stream was read.
        rows: which rows of the file these are, in which order; all of them if `None`.
    """

    path: Path
    size: int
    width: int
    sites: tuple[Site, ...]
    rows: Int[Tensor, " example"] | None = None

    @property
    def d_model(self) -> int:
        return self.width

    def __len__(self) -> int:
        return self.size if self.rows is None else len(self.rows)

    def column(self, site: Site) -> Float[Tensor, "example d_model"]:
        self.index(site)
        return self._read((site,))[0]

    def dense(self) -> Float[Tensor, "example site d_model"]:
        return torch.stack(self._read(self.sites), dim=1)

    def take(self, rows: Int[Tensor, " taken"]) -> "Shard":
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def _read(self, sites: Sequence[Site]) -> list[Float[Tensor, "example d_model"]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                columns = [file.get_tensor(tensor_name(site)) for site in sites]
        except (OSError, SafetensorError) as error:
            raise PersonaProbeError(
                f"{self.path} cannot be read ({error}); {cure(self.path)}"
            ) from None
        for column in columns:
            if column.shape != (self.size, self.width):
                raise PersonaProbeError(
                    f"{self.path} holds a tensor of shape {tuple(column.shape)} instead of "
                    f"{(self.size, self.width)}; {cure(self.path)}"
                )
        chosen = columns if self.rows is None else [column[self.rows] for column in columns]
        return [column.float() for column in chosen]


@dataclass(frozen=True, eq=False)
class Joined(Columns):
    """Several columns one after the other, each read only when rows of it are asked for.

    Attributes:
        parts: of the same sites and width.
        rows: which rows of all parts together these are, in which order.
        sites: where the residual stream was read.
        width: of the residual stream.
    """

    parts: tuple[Columns, ...]
    rows: Int[Tensor, " example"]
    sites: tuple[Site, ...]
    width: int

    @classmethod
    def of(cls, parts: Sequence[Columns], sites: tuple[Site, ...], width: int) -> "Joined":
        """All rows of all parts."""
        return cls(tuple(parts), torch.arange(sum(map(len, parts))), sites, width)

    @property
    def d_model(self) -> int:
        return self.width

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, site: Site) -> Float[Tensor, "example d_model"]:
        self.index(site)
        out = torch.empty(len(self), self.width)
        for mine, part in self._pieces():
            out[mine] = part.column(site)
        return out

    def dense(self) -> Float[Tensor, "example site d_model"]:
        out = torch.empty(len(self), len(self.sites), self.width)
        for mine, part in self._pieces():
            out[mine] = part.dense()
        return out

    def take(self, rows: Int[Tensor, " taken"]) -> "Joined":
        return replace(self, rows=self.rows[rows])

    def _pieces(self) -> Iterator[tuple[slice | Int[Tensor, " piece"], Columns]]:
        """Which of our rows lie in which part, and that part cut down to them."""
        ends = torch.tensor(list(accumulate(map(len, self.parts))), dtype=torch.long)
        of = torch.searchsorted(ends, self.rows, right=True)
        for index in torch.unique(of).tolist():
            mine = (of == index).nonzero()[:, 0]
            part = self.parts[index]
            theirs = self.rows[mine] - (ends[index] - len(part))
            yield _as_slice(mine), part if _is_all(theirs, part) else part.take(theirs)


def _as_slice(rows: Int[Tensor, " piece"]) -> slice | Int[Tensor, " piece"]:
    """The same rows as a slice, if they follow each other: copying is then several times faster."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first == len(rows) - 1 else rows


def _is_all(rows: Int[Tensor, " piece"], part: Columns) -> bool:
    return len(rows) == len(part) and bool((rows == torch.arange(len(part))).all())


def tensor_name(site: Site) -> str:
    """What a site's tensor is called in every file."""
    return f"site_{site.layer}"


def cure(path: Path) -> str:
    """What to do about a damaged shard, whichever of its two files is the damaged one."""
    return f"delete {path.parent / path.stem}.* and run the same extract command again"
