"""Tests of the fingerprints of a plan, by which finished shards are recognised."""

import hashlib

import fake_data
import fake_headers
import pytest

from beam_jobs import plan as plan_lib
from luna_tfds import CONFIGS
from luna_tfds import custom_config

ALL = CONFIGS['axial_50px_all']


def fingerprints(plan):
  """Returns the fingerprint of each (split, index)."""
  return {(s.split, s.index): s.fingerprint for s in plan.shards}


def hash_of(text):
  return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture
def folder(tmp_path):
  return fake_headers.write_five_scans(tmp_path)


def test_the_same_inputs_make_the_same_plan(folder):
  first, second = plan_lib.make_plan(folder, ALL), plan_lib.make_plan(folder, ALL)
  assert first.fingerprint == second.fingerprint
  assert fingerprints(first) == fingerprints(second)


def test_the_path_of_the_download_does_not_matter(folder, tmp_path):
  before = fingerprints(plan_lib.make_plan(folder, ALL))
  moved = folder.rename(tmp_path.with_name('moved'))
  assert fingerprints(plan_lib.make_plan(moved, ALL)) == before


def change_header(folder):
  path = folder / 'subset1' / 'c.mhd'
  path.write_text('ElementSpacing = 1 1 2\n' + path.read_text())


def change_size(folder):
  (folder / 'subset1' / 'c.raw').write_bytes(b'\0\0\0')


def change_data_file(folder):
  (folder / 'subset1' / 'c.raw').unlink()


def change_row(folder, old, new):
  text = (folder / 'candidates.csv').read_text()
  assert old in text
  (folder / 'candidates.csv').write_text(text.replace(old, new))


def change_centre(folder):
  change_row(folder, 'c,1.0,2.0,3.0,0', 'c,1.0,2.0,3.0000001,0')


def change_label(folder):
  change_row(folder, 'c,1.0,2.0,3.0,0', 'c,1.0,2.0,3.0,1')


def change_nodule(folder):
  nodules = [('a', 0.0, 2.0, 3.0, 3.0), ('c', 0.0, 2.0, 3.0, 3.0)]
  fake_data.write_findings(folder / 'annotations.csv', nodules)


def change_excluded(folder):
  fake_data.write_findings(folder / 'annotations_excluded.csv', [])


@pytest.mark.parametrize(
  'change',
  [
    change_header,
    change_size,
    change_data_file,
    change_centre,
    change_label,
    change_nodule,
    change_excluded,
  ],
)
def test_a_change_affects_the_fingerprint_of_its_shard_only(change, folder):
  before = plan_lib.make_plan(folder, ALL)
  change(folder)
  after = plan_lib.make_plan(folder, ALL)
  assert after.fingerprint != before.fingerprint
  changed = {
    place
    for place, fingerprint in fingerprints(after).items()
    if fingerprint != fingerprints(before)[place]
  }
  assert changed == {('train', 1)}


@pytest.mark.parametrize('changes', [{'seed': 1}, {'patch_shape': (50, 49)}])
def test_seed_and_shape_affect_the_fingerprint_of_every_shard(changes, folder):
  before = fingerprints(plan_lib.make_plan(folder, ALL))
  after = fingerprints(plan_lib.make_plan(folder, custom_config(ALL, **changes)))
  assert after.keys() == before.keys()
  assert not set(after.values()) & set(before.values())


def test_equal_lists_make_different_shards(tmp_path):
  fake_data.write_article(tmp_path)
  text = (tmp_path / 'valdatalabels.txt').read_text()
  (tmp_path / 'testdatalabels.txt').write_text(text)
  shards = plan_lib.make_plan(tmp_path, CONFIGS['article']).shards
  assert len({shard.fingerprint for shard in shards}) == len(shards) == 3


def test_fingerprint_of_a_plan_by_hand():
  shard = plan_lib.Shard('train', 3, 0, (), 'ab12', ())
  plan = plan_lib.Plan((shard,), record_bytes=10)
  assert plan.fingerprint == hash_of('[["train",3,"ab12"]]')


def test_fingerprint_of_a_shard_by_hand(tmp_path):
  rows = fake_data.write_article(tmp_path, sizes=((50, 50),))
  ((image, _, _),) = rows['train']
  shard = plan_lib.make_plan(tmp_path, CONFIGS['article']).shards[0]
  spec = '{"layout":"axial","shape_zyx":[1,50,50],"spacing_mm":null}'
  config = f'{{"seed":0,"source":"article","spec":{spec}}}'
  task = f'["{image.relative_to(tmp_path)}",0,{image.stat().st_size}]'
  # Another format would make the job rebuild every finished shard.
  expected = hash_of(f'[1,{config},"train",[{task}]]')
  assert shard.fingerprint == expected
  assert shard.task_fingerprints == (expected,)


def test_equal_scans_of_other_names_have_other_fingerprints(tmp_path):
  shards, tasks = set(), set()
  for name in ('a', 'b'):
    folder = tmp_path / name
    fake_headers.write_scans(folder, {name: 0})
    (folder / 'subset0' / f'{name}.mhd').write_text('ElementDataFile = voxels.raw\n')
    fake_headers.write_tables(folder, [(name, 0.0, 0.0, 0.0, 1)])
    (shard,) = plan_lib.make_plan(folder, ALL).shards
    shards.add(shard.fingerprint)
    tasks.update(shard.task_fingerprints)
  assert len(shards) == len(tasks) == 2


def test_a_data_file_of_one_byte_is_not_a_missing_one(folder):
  data_file = folder / 'subset1' / 'c.raw'
  data_file.write_bytes(b'\0')
  before = plan_lib.make_plan(folder, ALL)
  data_file.unlink()
  assert plan_lib.make_plan(folder, ALL).fingerprint != before.fingerprint
