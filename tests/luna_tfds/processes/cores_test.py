import os

import pytest

from luna_tfds.processes import cores


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
  """A machine of 8 usable cores without control groups; returns their folder."""
  monkeypatch.setattr(cores, '_CGROUP_V2', tmp_path)
  monkeypatch.setattr(cores, '_OWN_CGROUPS', tmp_path / 'own')
  monkeypatch.setattr(cores, '_CGROUP_V1', tmp_path / 'cpu')
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
  (tmp_path / 'cpu').mkdir()
  return tmp_path


def write_v1(cgroup, quota, period='100000'):
  (cgroup / 'cpu' / 'cpu.cfs_quota_us').write_text(f'{quota}\n')
  (cgroup / 'cpu' / 'cpu.cfs_period_us').write_text(f'{period}\n')


def test_without_control_groups_the_scheduler_decides(cgroup):
  assert cores.num_usable_cores() == 8


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('max 100000\n', 8),
    ('200000 100000\n', 2),
    ('150000 100000\n', 2),
    ('50000 100000\n', 1),
    ('1000 100000\n', 1),
    ('1600000 100000\n', 8),
    ('', 8),
    ('nonsense\n', 8),
  ],
)
def test_control_groups_version_2(text, expected, cgroup):
  (cgroup / 'cpu.max').write_text(text)
  assert cores.num_usable_cores() == expected


@pytest.mark.parametrize(
  ('quota', 'expected'), [(-1, 8), (300000, 3), (250000, 3), (10000, 1), (9900000, 8)]
)
def test_control_groups_version_1(quota, expected, cgroup):
  write_v1(cgroup, quota)
  assert cores.num_usable_cores() == expected


OF_VERSION_2 = '0::/user.slice/job.scope'
OF_VERSION_1 = '9:name=systemd:/other\n1:cpuacct,cpu:/user.slice/job.scope\n0::/'


@pytest.mark.parametrize(
  ('groups', 'expected'), [(OF_VERSION_2, 3), (OF_VERSION_1, 2), ('0::/gone', 8)]
)
@pytest.mark.parametrize('limited', ['user.slice', 'user.slice/job.scope'])
def test_the_groups_of_the_process_and_those_around_them(
  groups, expected, limited, cgroup
):
  (cgroup / 'own').write_text(f'{groups}\n')
  for folder in (cgroup / limited, cgroup / 'cpu' / limited, cgroup / 'other'):
    folder.mkdir(parents=True)
  (cgroup / 'other' / 'cpu.max').write_text('100000 100000\n')
  (cgroup / limited / 'cpu.max').write_text('250000 100000\n')
  (cgroup / 'cpu' / limited / 'cpu.cfs_quota_us').write_text('150000\n')
  (cgroup / 'cpu' / limited / 'cpu.cfs_period_us').write_text('100000\n')
  assert cores.num_usable_cores() == expected


def test_version_2_has_priority(cgroup):
  write_v1(cgroup, 600000)
  (cgroup / 'cpu.max').write_text('300000 100000\n')
  assert cores.num_usable_cores() == 3


def test_without_affinity_the_machine_decides(cgroup, monkeypatch):
  monkeypatch.delattr(os, 'sched_getaffinity')
  monkeypatch.setattr(os, 'cpu_count', lambda: 6)
  assert cores.num_usable_cores() == 6
  write_v1(cgroup, 200000)
  assert cores.num_usable_cores() == 2


def test_an_unknown_number_of_cores_is_one(cgroup, monkeypatch):
  monkeypatch.delattr(os, 'sched_getaffinity')
  monkeypatch.setattr(os, 'cpu_count', lambda: None)
  assert cores.num_usable_cores() == 1
