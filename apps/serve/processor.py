"""What this process may use of the CPU, and what the CPU can do."""

import math
import os
from pathlib import Path

FLAGS = Path("/proc/cpuinfo")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup version 2: "max 100000" or "150000 100000", microseconds


def cores(quota: Path = QUOTA) -> int:
    """The cores this process is let run on, and no more than its container's quota, 1 or more.

    Libraries count the machine's cores; threads beyond a container's quota only get it throttled.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        allowed = min(allowed, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no container, or one without a quota
    return max(allowed, 1)


def has_bfloat16(flags: Path = FLAGS) -> bool:
    """Whether the CPU multiplies in bfloat16 itself; others would only imitate it, slowly."""
    try:
        words = set(flags.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
