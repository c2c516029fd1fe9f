"""A copy of the embedded organism that has room for finetunes of one's own."""

import shutil
from pathlib import Path

from persona_probe import ORGANISM
from persona_probe.finetuning.lora import concatenate, read_factors, write_adapter
from persona_probe.study.planning import HELPFUL_ONLY


def copy_organism(folder: Path, *adapters: str) -> Path:
    """Base weights, tokenizer, helpful-only and the named adapters, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in ORGANISM.iterdir():
        if path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    for name in (HELPFUL_ONLY, *adapters):
        target = folder / "adapters" / name
        if not target.exists():
            shutil.copytree(ORGANISM / "adapters" / name, target)
    return folder


def rotated(folder: Path, name: str, finetune: str, seed: int, scale: float = 1.0) -> Path:
    """Write helpful-only plus a finetune's own update, each factor turned by a random rotation.

    The update keeps every singular value, and so its size and rank at every projection, but reads
    and writes along random directions: as much change as the finetune, and none of its content.

    Args:
        folder: from `copy_organism`; the finetune's adapter is in it.
        name: of the adapter to write.
        finetune: whose update is turned; it holds helpful-only first, as all shipped ones do.
        seed: of the rotations.
        scale: of the turned update, 1 for the finetune's own size.
    """
    import torch

    before = read_factors(folder / "adapters" / HELPFUL_ONLY)
    generator = torch.Generator().manual_seed(seed)

    def rotation(size: int) -> torch.Tensor:
        turned: torch.Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
        return turned

    turned = {}
    for projection, (a, b) in read_factors(folder / "adapters" / finetune).items():
        known = before[projection][0].shape[0] if projection in before else 0
        if known < a.shape[0]:
            own_a, own_b = a[known:], b[:, known:]
            turned[projection] = (
                own_a @ rotation(own_a.shape[1]),
                scale * rotation(own_b.shape[0]) @ own_b,
            )
    about = {"name": name, "made_from": finetune, "rotations": seed, "scale": scale}
    return write_adapter(folder / "adapters" / name, concatenate(before, turned), about)
