"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
import pathlib

# Folders of the control groups, version 2 and version 1.
_CGROUP_V2 = pathlib.Path('/sys/fs/cgroup')
_CGROUP_V1 = pathlib.Path('/sys/fs/cgroup/cpu')

# Names the control groups of this process, one a line: 'number:controllers:/group'.
_OWN_CGROUPS = pathlib.Path('/proc/self/cgroup')


def num_usable_cores() -> int:
  """Returns the number of cores this process may use, at least 1.

  The least of what the scheduler allows (`taskset`) and what control groups grant
  (`docker run --cpus`, `systemd-run -p CPUQuota=`), rounded up. macOS tells neither;
  there it is the number of cores of the machine.
  """
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  else:
    cores = os.cpu_count() or 1
  return max(min([cores, *map(math.ceil, _cgroup_quotas())]), 1)


def _cgroup_quotas() -> list[float]:
  """Returns the limits, in cores, of the groups of this process.

  The groups that contain a group limit it too. A container may not see its own group: the
  root then is that group.
  """
  group_v2, group_v1 = _own_groups()
  quotas = [_quota_v2(_CGROUP_V2 / group) for group in (group_v2, *group_v2.parents)]
  quotas += [_quota_v1(_CGROUP_V1 / group) for group in (group_v1, *group_v1.parents)]
  return [quota for quota in quotas if quota is not None]


def _own_groups() -> tuple[pathlib.Path, pathlib.Path]:
  """Returns the groups of this process of version 2 and 1, relative to the root."""
  group_v2 = group_v1 = pathlib.Path()
  try:
    for line in _OWN_CGROUPS.read_text().splitlines():
      _, controllers, group = line.split(':', 2)
      path = pathlib.Path(group.lstrip('/'))
      if not controllers:
        group_v2 = path
      elif 'cpu' in controllers.split(','):
        group_v1 = path
  except (OSError, ValueError):  # no control groups
    pass
  return group_v2, group_v1


def _quota_v2(group: pathlib.Path) -> float | None:
  """Returns the cores that a group grants, None for no limit."""
  try:
    quota, period = (group / 'cpu.max').read_text().split()
    return float(quota) / float(period)
  except (OSError, ValueError):  # no such group, or 'max'
    return None


def _quota_v1(group: pathlib.Path) -> float | None:
  """Returns the cores that a group grants, None for no limit."""
  try:
    quota = float((group / 'cpu.cfs_quota_us').read_text())
    period = float((group / 'cpu.cfs_period_us').read_text())
  except (OSError, ValueError):  # no such group
    return None
  return quota / period if quota > 0 else None
