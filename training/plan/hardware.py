"""GPUs to plan for. Rates are the makers' dense ones; prices and bandwidths are assumptions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from training.recipe import RecipeError

GPUS_A_NODE = 8
"""Assumed of every machine: how many processes share one host memory."""
NODES_GB_S = 200.0
"""Assumed of collectives across nodes with one 400 Gb/s card a GPU; half of it with slower ones."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU; the CPU's is one core with one process."""

    name: str
    memory_gib: float
    """What a process finds free of it: less than is printed on it."""
    bf16_tflops: float
    """Dense bfloat16 peak, 10^12 FLOPs a second."""
    fp32_tflops: float
    """float32 peak without tensor cores, which is what PyTorch uses unless told otherwise."""
    bus_gb_s: float
    """Assumed bandwidth of collectives within a node, 10^9 bytes a second and GPU."""
    host_gb_s: float
    """To and from host memory, 10^9 bytes a second and GPU."""
    price: float
    """Assumed price of one GPU, US dollars an hour."""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("h100", 79.0, 989.0, 67.0, 300.0, 50.0, 3.00),
        Gpu("h200", 139.5, 989.0, 67.0, 300.0, 50.0, 3.80),
        Gpu("b200", 178.0, 2250.0, 75.0, 600.0, 50.0, 5.50),
        Gpu("a100-80", 79.0, 312.0, 19.5, 200.0, 25.0, 1.80),
        Gpu("a100-40", 39.4, 312.0, 19.5, 200.0, 25.0, 1.30),
        Gpu("mi300x", 191.5, 1307.0, 163.4, 250.0, 50.0, 2.50),
        Gpu("l40s", 44.3, 362.0, 91.6, 20.0, 25.0, 1.00),
        Gpu("rtx4090", 23.5, 165.0, 82.6, 12.0, 25.0, 0.45),
        Gpu("cpu", 8.0, 0.1, 0.1, 5.0, 10.0, 0.05),
    )
}

_DEVICES = (
    # First match wins: the narrower name stands before the wider one.
    (r"H100.*PCIe", 756.0),
    (r"H100.*NVL", 835.0),
    (r"H100|GH200|H200", 989.0),
    (r"B200", 2250.0),
    (r"A100", 312.0),
    (r"MI300X", 1307.0),
    (r"L40S", 362.0),
    (r"RTX 4090(?! (Laptop|D))", 165.0),
)
"""Dense bfloat16 TFLOPS by what `torch.cuda.get_device_name` says."""


def gpu_named(name: str, memory_gib: float | None = None, price: float | None = None) -> Gpu:
    """A GPU of the table, with other memory or another price where given.

    Raises RecipeError, with the names there are, for one that is not in it.
    """
    found = GPUS.get(name.lower())
    if found is None:
        raise RecipeError(f"gpu: {name!r} is not known; one of {', '.join(GPUS)}")
    return replace(
        found,
        memory_gib=found.memory_gib if memory_gib is None else memory_gib,
        price=found.price if price is None else price,
    )


def peak_flops_of(device: str) -> float | None:
    """Dense bfloat16 FLOPs a second of a device by its CUDA name; None for an unknown one."""
    for pattern, tflops in _DEVICES:
        if re.search(pattern, device):
            return tflops * 1e12
    return None
