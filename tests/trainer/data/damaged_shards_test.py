import dataclasses
import pathlib

import fake_source
import pytest
import tensorflow as tf

from luna_tfds.errors import JobError
from trainer.data import damaged_shards
from trainer.data import single_records


@pytest.fixture
def damaged(tmp_path):
  """A split whose third shard has a wrong byte, and the path of that shard."""
  source = fake_source.write_split(tmp_path, 300, 60).source
  path = pathlib.Path(source.slices[2].path)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 255
  path.write_bytes(content)
  return source, path


def read_all(source):
  fake_source.read_columns(source, ['label'])


def test_a_damaged_shard_is_named(damaged):
  source, path = damaged
  with (
    pytest.raises(JobError, match=rf'{path}: cannot be read: record \d+ .*damaged'),
    damaged_shards.reported(None, source),
  ):
    read_all(source)


def test_a_truncated_shard_is_named(damaged):
  source, path = damaged
  path.write_bytes(path.read_bytes()[:1000])
  with (
    pytest.raises(JobError, match=rf'{path}: cannot be read: .*truncated'),
    damaged_shards.reported(source),
  ):
    read_all(source)


def test_a_missing_shard_is_named(damaged):
  source, path = damaged
  path.unlink()
  with (
    pytest.raises(JobError, match=f'{path}: cannot be read: No such file'),
    damaged_shards.reported(source),
  ):
    read_all(source)


@pytest.mark.parametrize('balance', ['rejection', 'streams'])
@pytest.mark.parametrize('memory_budget_mb', [1, 256])
def test_a_damaged_shard_is_named_while_training(damaged, balance, memory_budget_mb):
  source, path = damaged
  if memory_budget_mb == 1:
    source = dataclasses.replace(source, num_bytes=2**30)
  config = fake_source.input_config(balance=balance, memory_budget_mb=memory_budget_mb)
  with pytest.raises(JobError, match=str(path)), damaged_shards.reported(source):
    fake_source.draw(source, config, 40)


def test_reading_images_and_finding_records_name_it_too(damaged):
  source, path = damaged
  with pytest.raises(JobError, match=str(path)):
    single_records.read_images(source, [300])
  with pytest.raises(JobError, match=str(path)):
    single_records.position_of(source, 'scan/7')


def test_errors_of_other_files_pass(damaged):
  with pytest.raises(tf.errors.NotFoundError, match='other'), damaged_shards.reported():
    raise tf.errors.NotFoundError(None, None, 'another file, other than a shard')
