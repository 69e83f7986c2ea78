"""Records in a store, here in the memory of this process, are read as those on disk."""

import dataclasses
import pathlib

import fake_source
import numpy as np
import pytest
import tensorflow as tf

from luna_tfds.errors import JobError
from luna_tfds.files import atomic_files
from luna_tfds.files import store_path
from trainer.data import damaged_shards
from trainer.data import record_blocks
from trainer.data import split_index
from trainer.data import store_records

SLOW = pytest.mark.slow


@pytest.fixture
def uploaded(memory_url):
  """Returns a function: the same split in a store."""
  folder = store_path.as_path(memory_url)

  def upload(source):
    slices = []
    for item in source.slices:
      target = folder / pathlib.Path(item.path).name
      atomic_files.copy_file(pathlib.Path(item.path), target)
      slices.append(dataclasses.replace(item, path=str(target)))
    return dataclasses.replace(source, slices=tuple(slices))

  return upload


@pytest.mark.parametrize(
  'name',
  ['files', *(pytest.param(n, marks=SLOW) for n in ('memory', 'streams from files'))],
)
def test_batches_are_those_of_the_files(name, split_for, uploaded):
  source = split_for(name).source
  config = fake_source.input_config(**fake_source.STREAM_FIELDS[name])
  expected = fake_source.hash_batches(source, config, 12)
  assert fake_source.hash_batches(uploaded(source), config, 12) == expected


@pytest.mark.parametrize('block_records', [1, 7, 64, 1000])
def test_stored_blocks(block_records, small_split, uploaded):
  part = dataclasses.replace(small_split.source.slices[0], skip=70, take=15)
  source = dataclasses.replace(
    small_split.source, slices=(*small_split.source.slices, part)
  )
  expected = [b.numpy() for b in record_blocks.stored_blocks(source, block_records)]
  found = list(record_blocks.stored_blocks(uploaded(source), block_records))
  for block, other in zip(found, expected, strict=True):
    np.testing.assert_array_equal(block.numpy(), other)


def test_all_records_of_a_file(small_split, uploaded):
  (expected, found) = (
    list(store_records.file_records(source.slices[1].path).as_numpy_iterator())
    for source in (small_split.source, uploaded(small_split.source))
  )
  assert found == expected


def test_a_run_is_read_by_one_request(large_split, uploaded, monkeypatch):
  source = split_index.with_index(uploaded(large_split.source))
  item = source.slices[2]
  expected = list(tf.data.TFRecordDataset(large_split.source.slices[2].path))
  read_range, ranges = store_path.StorePath.read_range, []

  def recorded(path, start, stop):
    ranges.append((start, stop))
    return read_range(path, start, stop)

  monkeypatch.setattr(store_path.StorePath, 'read_range', recorded)
  found = store_records.read_range(item, item.index.offsets[2], 130)
  assert found.tolist() == [r.numpy() for r in expected[128:258]]
  assert ranges == [(item.index.offsets[2], item.index.offsets[5])]
  last = store_records.read_range(item, item.index.offsets[-1], item.take % 64)
  assert last.tolist() == [r.numpy() for r in expected[-(item.take % 64) :]]


@pytest.mark.slow
@pytest.mark.parametrize('problem', ['damaged', 'truncated', 'no such object'])
@pytest.mark.parametrize('memory_budget_mb', [1, 256])
def test_a_damaged_shard_is_named(problem, memory_budget_mb, large_split, uploaded):
  source = uploaded(large_split.source)
  path = store_path.as_path(source.slices[2].path)
  source = split_index.with_index(source)
  content = path.read_bytes()
  middle = len(content) // 2
  if problem == 'no such object':
    path.unlink()
  elif problem == 'truncated':
    path.write_bytes(content[:-1])
  else:
    changed = bytes([content[middle] ^ 255])
    path.write_bytes(content[:middle] + changed + content[middle + 1 :])
  config = fake_source.input_config(
    balance='streams', memory_budget_mb=memory_budget_mb
  )
  with (
    pytest.raises(JobError, match=f'{path}: cannot be read: .*{problem}'),
    damaged_shards.reported(source),
  ):
    fake_source.draw(source, config, 600)
