"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
import pathlib

# Limits on processor time: control groups version 2 ('quota period' or 'max period'),
# and version 1 (a file each, -1 for no quota).
_CGROUP_V2 = pathlib.Path('/sys/fs/cgroup/cpu.max')
_CGROUP_V1 = pathlib.Path('/sys/fs/cgroup/cpu')


def num_usable_cores() -> int:
  """Returns the number of cores this process may use, at least 1.

  The least of what the scheduler allows (`taskset`) and what the control group of a
  container grants (`docker run --cpus`), rounded up. macOS tells neither; there it is
  the number of cores of the machine.
  """
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  else:
    cores = os.cpu_count() or 1
  quota = _cgroup_quota()
  return cores if quota is None else max(min(cores, math.ceil(quota)), 1)


def _cgroup_quota() -> float | None:
  """Returns the cores a control group grants, None for no limit."""
  try:
    if _CGROUP_V2.is_file():
      quota, period = _CGROUP_V2.read_text().split()
    else:
      quota = (_CGROUP_V1 / 'cpu.cfs_quota_us').read_text()
      period = (_CGROUP_V1 / 'cpu.cfs_period_us').read_text()
    return float(quota) / float(period) if float(quota) > 0 else None
  except (OSError, ValueError):  # no control group, or 'max'
    return None
