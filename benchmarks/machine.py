"""What a measurement was made on."""

import os
import platform
from pathlib import Path


def describe(device: str, threads: int | None) -> str:
    """Processor or accelerator in words, and how much of it was used."""
    if device == "cuda":
        import torch

        about = torch.cuda.get_device_properties(0)
        return f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    return f"{_processor()}, {threads} of {os.cpu_count()} cores"


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    wide = any("avx512f" in line for line in lines if line.startswith("flags"))
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({platform.machine()}{', AVX-512' if wide else ''})"
