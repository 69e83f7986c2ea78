import itertools
import os
import pathlib
import tempfile

import fake_data
import fake_headers
import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles
import pytest

from beam_jobs import plan as plan_lib
from beam_jobs import tasks
from luna_tfds import CONFIGS
from luna_tfds import UsageError
from luna_tfds import custom_config

ALL = CONFIGS['axial_50px_all']


def planned(plan):
  """Returns the (seriesuid, candidate_id) of every record, in order."""
  return [
    (task.seriesuid, int(row))
    for shard in plan.shards
    for task in shard.tasks
    for row in task.candidate_ids
  ]


def input_files(shard):
  """Returns the input files of a shard, in order."""
  return [path for task in shard.tasks for path in tasks.input_files(task)]


@pytest.fixture
def folder(tmp_path):
  return fake_headers.write_five_scans(tmp_path)


def test_plan_by_hand(folder):
  plan = plan_lib.make_plan(folder, ALL)
  assert [(s.split, s.index, s.subset) for s in plan.shards] == [
    ('train', 0, 0),
    ('train', 1, 1),
    ('validation', 0, 8),
    ('test', 0, 9),
  ]
  assert [[t.seriesuid for t in s.tasks] for s in plan.shards] == [
    ['a', 'b'],
    ['c'],
    ['d'],
    ['e'],
  ]
  assert plan.splits == ['train', 'validation', 'test']
  assert (plan.num_records, plan.num_scans, plan.scans_on_disk) == (25, 5, 5)
  assert plan.candidates_without_scan == 4
  assert plan.of_split('train') == list(plan.shards[:2])


def test_a_task_has_the_data_of_the_csv_files(folder):
  task = plan_lib.make_plan(folder, ALL).shards[0].tasks[0]
  assert task.seriesuid == 'a'
  assert task.path == str(folder / 'subset0' / 'a.mhd')
  assert len(task.candidate_ids) == 5
  rows = oracles.read_csv(folder / 'candidates.csv')
  for row, label, point in zip(task.candidate_ids, task.labels, task.centers_xyz_mm):
    assert rows[row] == ('a', *point, label)
  assert task.matches.nodule_id.tolist() == [0, 0, -1, -1, -1]
  assert task.matches.diameter_mm.tolist() == [3, 3, 0, 0, 0]


def test_record_keys(folder):
  shard = plan_lib.make_plan(folder, ALL).shards[0]
  expected = [
    f'{task.seriesuid}/{row}' for task in shard.tasks for row in task.candidate_ids
  ]
  assert list(shard.record_keys()) == expected
  assert list(shard.record_keys(without={'a'})) == expected[5:]
  assert expected[5].startswith('b/')


@pytest.mark.parametrize('config', ['axial_50px', 'axial_50px_all'])
def test_every_selected_candidate_is_planned_once(config, download):
  plan = plan_lib.make_plan(download.folder, CONFIGS[config])
  subset_of = {name: scan.subset for name, scan in download.scans.items()}
  ratio = CONFIGS[config].negatives_per_positive
  selected = oracles.selected_rows(download.candidates, subset_of, ratio)
  expected = sorted((download.candidates[i][0], i) for i in selected)
  assert sorted(planned(plan)) == expected


@pytest.mark.parametrize('ratio', [0, 2])
def test_ratio_and_seed_select_negatives_by_hash(ratio, download):
  config = custom_config(CONFIGS['axial_50px'], negatives_per_positive=ratio, seed=4)
  plan = plan_lib.make_plan(download.folder, config)
  subset_of = {name: scan.subset for name, scan in download.scans.items()}
  selected = oracles.selected_rows(download.candidates, subset_of, ratio, seed=4)
  assert {row for _, row in planned(plan)} == selected


layouts = st.dictionaries(
  st.integers(100, 999).map('scan{}'.format),
  st.tuples(
    st.sampled_from([None, 0, 1, 5, 8, 9]), st.integers(0, 3), st.integers(0, 6)
  ),
  min_size=1,
  max_size=14,
).filter(lambda scans: any(s[0] is not None for s in scans.values()))


@hypothesis.given(
  layout=layouts, ratio=st.sampled_from([None, 0, 1, 5]), shuffle=st.randoms()
)
@hypothesis.settings(max_examples=40)
def test_properties_of_a_plan(layout, ratio, shuffle):
  config = custom_config(ALL, negatives_per_positive=ratio)
  subset_of = {name: s[0] for name, s in layout.items() if s[0] is not None}
  rows = fake_headers.rows_of({name: s[1:] for name, s in layout.items()})
  hypothesis.assume(rows)
  with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
    first, second = pathlib.Path(first), pathlib.Path(second)
    fake_headers.write_scans(first, subset_of)
    fake_headers.write_tables(first, rows)
    plan = plan_lib.make_plan(first, config)
    # Each selected candidate once.
    selected = oracles.selected_rows(rows, subset_of, ratio)
    assert sorted(planned(plan)) == sorted((rows[i][0], i) for i in selected)
    assert plan.candidates_without_scan == sum(row[0] not in subset_of for row in rows)
    for shard in plan.shards:
      assert shard.num_records > 0
      assert {subset_of[task.seriesuid] for task in shard.tasks} == {shard.subset}
      assert shard.split == oracles.split_of(shard.subset)
    for split in plan.splits:
      shards = plan.of_split(split)
      assert [shard.index for shard in shards] == list(range(len(shards)))
    assert len({shard.fingerprint for shard in plan.shards}) == len(plan.shards)
    # The same scans written in another order, and rows of a scan that is not on disk.
    names = list(subset_of)
    shuffle.shuffle(names)
    fake_headers.write_scans(second, {name: subset_of[name] for name in names})
    fake_headers.write_tables(second, [*rows, ('not_on_disk', 0.0, 0.0, 0.0, 1)])
    again = plan_lib.make_plan(second, config)
    assert again.fingerprint == plan.fingerprint


class FakeTask:
  def __init__(self, num_records, num_scans=1):
    self.labels = [0] * num_records
    self.num_scans = num_scans


@hypothesis.given(
  sizes=st.lists(st.integers(1, 40), max_size=30),
  max_records=st.integers(1, 60),
  max_scans=st.integers(1, 6),
)
def test_shards_are_within_their_limits(sizes, max_records, max_scans):
  tasks = [FakeTask(size) for size in sizes]
  groups = list(plan_lib.pack_tasks(tasks, 100, max_records * 100, max_scans))
  assert [task for group in groups for task in group] == tasks
  for group in groups:
    assert 1 <= len(group) <= max_scans
    assert len(group) == 1 or sum(len(t.labels) for t in group) <= max_records
  # No group had space for the first task of the next one.
  for group, following in itertools.pairwise(groups):
    full = sum(len(t.labels) for t in [*group, following[0]]) > max_records
    assert full or len(group) == max_scans


def test_shards_are_filled_to_their_exact_limit():
  tasks = [FakeTask(size) for size in (2, 1, 1, 2, 3, 4, 1)]
  groups = plan_lib.pack_tasks(tasks, record_bytes=100, max_bytes=300)
  assert [[len(task.labels) for task in group] for group in groups] == [
    [2, 1],
    [1, 2],
    [3],
    [4],
    [1],
  ]


def test_many_scans_make_many_shards(tmp_path):
  names = [f'scan{i:02d}' for i in range(2 * plan_lib.MAX_SCANS_PER_SHARD + 3)]
  fake_headers.write_scans(tmp_path, dict.fromkeys(names, 4))
  fake_headers.write_tables(
    tmp_path, fake_headers.rows_of(dict.fromkeys(names, (1, 1)))
  )
  plan = plan_lib.make_plan(tmp_path, ALL)
  most = plan_lib.MAX_SCANS_PER_SHARD
  assert [shard.num_scans for shard in plan.shards] == [most, most, 3]
  assert [shard.index for shard in plan.shards] == [0, 1, 2]


def test_large_patches_make_small_shards(tmp_path):
  fake_headers.write_scans(tmp_path, {'a': 4, 'b': 4, 'c': 4})
  # 48^3 int16 is 221,184 bytes; 400 of them are two thirds of a shard.
  fake_headers.write_tables(
    tmp_path, fake_headers.rows_of({'a': (0, 400), 'b': (0, 400), 'c': (0, 150)})
  )
  plan = plan_lib.make_plan(tmp_path, CONFIGS['cube_48mm_all'])
  assert [[t.seriesuid for t in s.tasks] for s in plan.shards] == [['a'], ['b', 'c']]
  assert plan.record_bytes > 48**3 * 2
  for shard in plan.shards:
    assert shard.num_records * plan.record_bytes <= plan_lib.MAX_SHARD_BYTES


def test_subsets(folder):
  plan = plan_lib.make_plan(folder, custom_config(ALL, subsets=(1, 9)))
  assert [s.subset for s in plan.shards] == [1, 9]
  assert plan.splits == ['train', 'test']
  assert plan.scans_on_disk == 2


def test_second_candidate_list(folder):
  config = custom_config(ALL, candidate_list='V2')
  with pytest.raises(UsageError, match=r'candidates_V2\.csv .* is missing'):
    plan_lib.make_plan(folder, config)
  fake_data.write_candidates(folder / 'candidates_V2.csv', [('d', 1.0, 2.0, 3.0, 0)])
  assert planned(plan_lib.make_plan(folder, config)) == [('d', 0)]


def test_missing_annotations(folder, caplog):
  (folder / 'annotations_excluded.csv').unlink()
  plan = plan_lib.make_plan(folder, ALL)
  assert not any(t.matches.excluded.any() for s in plan.shards for t in s.tasks)
  warning = (
    f'{folder}: annotations_excluded.csv is missing, so no record is marked as excluded; '
    'it is in the evaluationScript.zip of LUNA16'
  )
  assert warning in caplog.messages
  (folder / 'annotations.csv').unlink()
  with pytest.raises(UsageError, match=r'annotations\.csv .* is missing'):
    plan_lib.make_plan(folder, ALL)


def test_no_candidate_in_a_scan_on_disk(folder):
  fake_headers.write_tables(folder, fake_headers.rows_of({'not_on_disk': (1, 1)}))
  plan = plan_lib.make_plan(folder, ALL)
  assert plan.shards == ()
  assert plan.candidates_without_scan == 2


def test_input_files(folder):
  shard = plan_lib.make_plan(folder, ALL).shards[0]
  names = [os.path.relpath(path, folder) for path in input_files(shard)]
  assert names == ['subset0/a.mhd', 'subset0/a.raw', 'subset0/b.mhd', 'subset0/b.raw']


def test_input_files_of_a_broken_header(folder):
  (folder / 'subset1' / 'c.mhd').write_text('ElementDataFile = /etc/hostname\n')
  shard = plan_lib.make_plan(folder, ALL).shards[1]
  assert input_files(shard) == [folder / 'subset1' / 'c.mhd']


def test_article(tmp_path):
  rows = fake_data.write_article(tmp_path)
  plan = plan_lib.make_plan(tmp_path, CONFIGS['article'])
  assert [(s.split, s.index, s.subset) for s in plan.shards] == [
    ('train', 0, -1),
    ('validation', 0, -1),
  ]
  for shard in plan.shards:
    images = [image for task in shard.tasks for image in task.images]
    assert [(i.path, i.label, i.candidate_id) for i in images] == rows[shard.split]
    assert input_files(shard) == [path for path, _, _ in rows[shard.split]]
    assert all(task.labels.dtype == np.int8 for task in shard.tasks)
  assert (plan.num_scans, plan.scans_on_disk, plan.candidates_without_scan) == (0, 0, 0)
  assert plan.num_records == 8
  assert plan.num_bytes > 8 * 50 * 50 * 2
  keys = [[f'/{row}' for _, _, row in rows[s]] for s in ('train', 'validation')]
  assert [list(shard.record_keys()) for shard in plan.shards] == keys


def test_plan_of_the_real_scans(real_data):
  plan = plan_lib.make_plan(real_data / 'luna16', ALL)
  assert [(s.split, s.subset, s.num_scans) for s in plan.shards] == [
    ('train', 1, 1),
    ('test', 9, 1),
  ]
  assert plan.num_records == 935
  labels = np.concatenate([t.labels for s in plan.shards for t in s.tasks])
  assert labels.sum() == 4


def test_scans_that_are_no_files_are_planned(folder):
  for name, make in (
    ('a', lambda path: path.symlink_to('absent.mhd')),
    ('b', lambda path: path.mkdir()),
    ('c', os.mkfifo),
  ):
    (path,) = folder.glob(f'subset*/{name}.mhd')
    path.unlink()
    make(path)
  plan = plan_lib.make_plan(folder, ALL)
  assert sorted({name for name, _ in planned(plan)}) == ['a', 'b', 'c', 'd', 'e']
  assert [path.name for path in input_files(plan.shards[0])] == [
    'a.mhd',
    'b.mhd',
  ]
