"""Readers of an extracted dataset: its metadata, its shards."""

import functools

import fake_data
import input_files
import mutations
import numpy as np
from readers import USER_ERRORS
from readers import Reader
from readers import mutate_one

from beam_jobs import dataset_metadata
from beam_jobs import disk_job_folder
from beam_jobs import plan as plan_lib
from beam_jobs import registered_dataset
from beam_jobs import shard_writer
from luna_tfds import CONFIGS
from luna_tfds import luna16_patches
from luna_tfds import record_index
from luna_tfds import records
from luna_tfds import shard_contents
from luna_tfds import tfrecord
from luna_tfds import verification
from trainer.data import audit
from trainer.data import dataset as dataset_lib

_SHAPE = (4, 4, 1)


def _records():
  encoder = records.RecordEncoder(_SHAPE)
  image = np.arange(16, dtype=np.int16).reshape(_SHAPE)
  return [
    encoder.encode(records.Record(image, number % 2, f'1.2.{number // 2}', number))
    for number in range(4)
  ]


def _shard_seeds(folder):
  folder.mkdir()
  tfrecord.write_tfrecords(folder / records.shard_name('train', 0, 1), _records())
  return [input_files.read(folder)]


def _mutate_shard(files, rng):
  return {name: mutations.mutate_tfrecord(data, rng) for name, data in files.items()}


def _read_shard(folder):
  """Reads a shard as luna16-inspect --verify does."""
  path = folder / records.shard_name('train', 0, 1)
  try:
    shard_contents.read_shard(path, _SHAPE)
  except ValueError as error:  # documented; `verify` lists its message
    if type(error) is not ValueError:
      raise
    assert str(path) in str(error)


_CONFIG = luna16_patches.custom_config(CONFIGS['axial_50px_all'], patch_shape=(4, 4))


@functools.cache
def _plan(seeds):
  return plan_lib.make_plan(seeds / 'download', _CONFIG)


def _dataset_seeds(folder):
  """Extracts a small dataset."""
  scans = [fake_data.make_scan(s, s, shape_zyx=(3, 4, 5)) for s in (0, 1, 8, 9)]
  fake_data.write_download(folder / 'download', scans)
  plan = _plan(folder)
  builder = luna16_patches.Builder(config=_CONFIG, data_dir=str(folder / 'none'))
  job = disk_job_folder.DiskJobFolder(folder / 'data' / _CONFIG.name / '1.0.0')
  with job.locked():
    job.clean(plan)
    results = [
      shard_writer.write_shard(shard, _CONFIG.spec, _CONFIG.seed, job)
      for shard in plan.shards
    ]
    job.finalize(
      plan,
      lambda path: dataset_metadata.write_metadata(builder, plan, results, path),
    )
  return [input_files.read(job.final)]


def _mutate_metadata(files, rng):
  """Changes one of the files beside the shards."""
  files = dict(files)
  names = [name for name in sorted(files) if '.tfrecord' not in name]
  name = rng.choice(names)
  if rng.randrange(20) == 0 and len(names) > 1:
    del files[name]
  elif name.endswith('.json'):
    files[name] = mutations.mutate_json(files[name], rng)
  else:
    files[name] = mutations.mutate_lines(files[name], rng)
  return files


def _read_metadata(folder):
  """Reads the metadata as the job, luna16-inspect and luna16-train do."""
  errors = []
  for read in (
    lambda: _read_registered(folder),
    lambda: verification.verify(folder),
    lambda: _open(folder),
  ):
    try:
      read()
    except USER_ERRORS as error:
      errors.append(error)
  if errors:
    raise errors[0]


def _read_registered(folder):
  registered = registered_dataset.read(folder)
  registered.check_inputs(_plan(folder.parent / 'seeds'))
  registered.intact_shards()
  registered.has_complete_metadata()


def _open(folder):
  """Opens a dataset and its splits."""
  dataset = dataset_lib.open_dataset(str(folder.parent), str(folder))
  audit.check_metadata(dataset)
  for split in dataset.split_names:
    source = dataset.open_split(split)
    assert sum(source.label_counts) == source.num_records
    dataset.in_subsets(source, {0, 8})


def _index_seeds(folder):
  folder.mkdir()
  index = record_index.ShardIndex.from_records([0, 1, 0], [True, False, False], [9] * 3)
  record_index.write_record_index(folder, {'train': [index, index], 'test': [index]})
  return [input_files.read(folder)]


def _read_index(folder):
  try:
    indexes = record_index.read_record_index(folder)
  except (AttributeError, KeyError, TypeError, ValueError):  # documented
    return
  for shards in indexes.values():
    for shard in shards:
      assert all(0 <= i < shard.num_records for i in shard.nodules + shard.excluded)


_PATIENTS = b'seriesuid,patient\n1.2.3,LIDC-1\n1.2.4,LIDC-1\n1.2.5,LIDC-2\n'

_ALL = (
  Reader(
    'tfrecord',
    _shard_seeds,
    _mutate_shard,
    _read_shard,
    ('luna_tfds.tfrecord', 'luna_tfds.shard_contents'),
  ),
  Reader(
    'record_index',
    _index_seeds,
    mutate_one(_json=mutations.mutate_json),
    _read_index,
    ('luna_tfds.record_index',),
  ),
  Reader(
    'metadata',
    _dataset_seeds,
    _mutate_metadata,
    _read_metadata,
    (
      *('luna_tfds.verification', 'luna_tfds.record_index', 'trainer.data.dataset'),
      *('beam_jobs.registered_dataset', 'beam_jobs.shard_result', 'trainer.data.audit'),
    ),
  ),
  Reader(
    'patients',
    lambda folder: [{'patients.csv': _PATIENTS}],
    mutate_one(_csv=mutations.mutate_csv),
    lambda folder: audit.read_patients(str(folder / 'patients.csv')),
    ('trainer.data.audit',),
  ),
)
READERS = {reader.name: reader for reader in _ALL}
