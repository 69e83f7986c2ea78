import hashlib

import numpy as np
import pytest

from luna_tfds import records

SHAPES = {'axial': (50, 50, 1), 'stack': (8, 12, 5), 'cube': (4, 5, 6, 1)}

# Encodes the record of `make_record` and prints a digest of its bytes.
CODE = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
import records_test
from luna_tfds import records
encoder = records.RecordEncoder((50, 50, 1))
serialized = [encoder.encode(records_test.make_record(i)) for i in range(5)]
print(json.dumps([hashlib.sha256(s).hexdigest() for s in serialized]))
"""


def make_record(seed=0, shape=(50, 50, 1)):
  rng = np.random.default_rng(seed)
  return records.Record(
    image=rng.integers(-1000, 3072, shape).astype(np.int16),
    label=seed % 2,
    seriesuid=f'1.3.6.1.4.1.14519.5.2.1.6279.6001.{seed}',
    candidate_id=551_064 + seed,
    subset=seed % 10,
    center_xyz_mm=rng.uniform(-300, 300, 3),
    center_zyx=rng.uniform(0, 500, 3),
    spacing_xyz_mm=tuple(rng.uniform(0.5, 2.5, 3).tolist()),
    nodule_id=1185 - seed,
    diameter_mm=float(rng.uniform(3, 30)),
    excluded=bool(seed % 3 == 0),
  )


def expected_fields(record):
  """Returns the fields of a record with the dtypes of the documented features."""
  return {
    'image': np.asarray(record.image, np.int16),
    'label': np.int64(record.label),
    'seriesuid': record.seriesuid.encode(),
    'candidate_id': np.int64(record.candidate_id),
    'subset': np.int64(record.subset),
    'center_xyz_mm': np.asarray(record.center_xyz_mm, np.float64),
    'center_zyx': np.asarray(record.center_zyx, np.float32),
    'spacing_xyz_mm': np.asarray(record.spacing_xyz_mm, np.float32),
    'nodule_id': np.int64(record.nodule_id),
    'diameter_mm': np.float32(record.diameter_mm),
    'excluded': np.bool_(record.excluded),
  }


def assert_fields(found, record):
  expected = expected_fields(record)
  assert set(found) == set(expected)
  for name, value in expected.items():
    got = np.asarray(found[name])
    np.testing.assert_array_equal(got, value, err_msg=name)
    if name != 'seriesuid':
      assert got.dtype == np.asarray(value).dtype, name
    assert got.shape == np.asarray(value).shape, name


@pytest.mark.parametrize('layout', SHAPES)
def test_parse_batch_eagerly(layout):
  shape = SHAPES[layout]
  made = [make_record(seed, shape) for seed in range(4)]
  encoder = records.RecordEncoder(shape)
  parsed = records.parse_batch([encoder.encode(record) for record in made], shape)
  for i, record in enumerate(made):
    assert_fields({name: value[i].numpy() for name, value in parsed.items()}, record)


@pytest.mark.parametrize('layout', SHAPES)
def test_parse_batch_in_tf_data(layout):
  import tensorflow as tf

  shape = SHAPES[layout]
  made = [make_record(seed, shape) for seed in range(7)]
  encoder = records.RecordEncoder(shape)
  dataset = tf.data.Dataset.from_tensor_slices([encoder.encode(r) for r in made])
  dataset = dataset.batch(3).map(lambda batch: records.parse_batch(batch, shape))
  assert dataset.element_spec['image'].shape.as_list() == [None, *shape]
  assert dataset.element_spec['center_xyz_mm'].shape.as_list() == [None, 3]
  found = list(dataset.unbatch().as_numpy_iterator())
  assert len(found) == 7
  for fields, record in zip(found, made):
    assert_fields(fields, record)


def test_parse_batch_of_some_features():
  record = make_record(1)
  serialized = [records.RecordEncoder((50, 50, 1)).encode(record)]
  parsed = records.parse_batch(serialized, (50, 50, 1), ['label', 'center_xyz_mm'])
  assert set(parsed) == {'label', 'center_xyz_mm'}
  np.testing.assert_array_equal(parsed['center_xyz_mm'][0], record.center_xyz_mm)
  assert parsed['label'].numpy().tolist() == [1]


@pytest.mark.parametrize('layout', SHAPES)
def test_tfds_decodes_the_record(layout):
  shape = SHAPES[layout]
  record = make_record(2, shape)
  serialized = records.RecordEncoder(shape).encode(record)
  decoded = records.features(shape).deserialize_example(serialized)
  assert_fields({name: value.numpy() for name, value in decoded.items()}, record)


@pytest.mark.parametrize('layout', SHAPES)
def test_bytes_are_those_of_the_tfds_serializer(layout):
  import tensorflow_datasets as tfds

  shape = SHAPES[layout]
  features = records.features(shape)
  serializer = tfds.core.example_serializer.ExampleSerializer(
    features.get_serialized_info()
  )
  for seed in range(5):
    record = make_record(seed, shape)
    example = serializer.get_tf_example(
      features.encode_example(expected_fields(record))
    )
    expected = example.SerializeToString(deterministic=True)
    assert records.RecordEncoder(shape).encode(record) == expected


def test_defaults_of_fields():
  record = records.Record(np.zeros((2, 2, 1), np.int16), 0)
  serialized = records.RecordEncoder((2, 2, 1)).encode(record)
  decoded = records.features((2, 2, 1)).deserialize_example(serialized)
  found = {name: value.numpy() for name, value in decoded.items()}
  assert (found['seriesuid'], found['candidate_id'], found['subset']) == (b'', -1, -1)
  assert (found['nodule_id'], found['diameter_mm'], found['excluded']) == (-1, 0, False)
  for name in ('center_xyz_mm', 'center_zyx', 'spacing_xyz_mm'):
    assert np.isnan(found[name]).all()


def test_centre_keeps_all_64_bits():
  # Two values that are equal as float32.
  centers = [(-128.6994211, 0.1, 1 / 3), (np.nextafter(-128.6994211, 0), 0.1, 1 / 3)]
  encoder = records.RecordEncoder((1, 1, 1))
  serialized = [
    encoder.encode(records.Record(np.zeros((1, 1, 1), np.int16), 0, center_xyz_mm=c))
    for c in centers
  ]
  parsed = records.parse_batch(serialized, (1, 1, 1), ['center_xyz_mm'])
  assert [tuple(c) for c in parsed['center_xyz_mm'].numpy().tolist()] == centers


def test_extreme_hounsfield_units():
  image = np.array([-32768, -1024, -1000, -1, 0, 3071, 32767], np.int16)
  image = image.reshape(1, 7, 1)
  serialized = [records.RecordEncoder((1, 7, 1)).encode(records.Record(image, 1))]
  parsed = records.parse_batch(serialized, (1, 7, 1), ['image'])
  np.testing.assert_array_equal(parsed['image'][0], image)


def test_images_with_any_memory_layout():
  record = make_record(3, (6, 8, 1))
  encoder = records.RecordEncoder((6, 8, 1))
  backwards = record.image[::-1].copy()[::-1]
  columns_first = np.asfortranarray(record.image)
  for image in (backwards, columns_first):
    other = record._replace(image=image)
    assert encoder.encode(other) == encoder.encode(record)


@pytest.mark.parametrize(
  'image',
  [
    np.zeros((50, 49, 1), np.int16),
    np.zeros((50, 50), np.int16),
    np.zeros((1, 50, 50), np.int16),
    np.zeros((2500,), np.int16),
    np.zeros((50, 50, 1), np.int32),
    np.zeros((50, 50, 1), np.float32),
  ],
)
def test_images_of_another_shape_or_dtype_are_rejected(image):
  with pytest.raises(ValueError, match=r'must be int16 \(50, 50, 1\)\. Received: '):
    records.RecordEncoder((50, 50, 1)).encode(records.Record(image, 0))


def test_bytes_are_the_same_in_a_fresh_interpreter(fresh_python, request):
  encoder = records.RecordEncoder((50, 50, 1))
  expected = [
    hashlib.sha256(encoder.encode(make_record(seed))).hexdigest() for seed in range(5)
  ]
  found = fresh_python(CODE, request.path.parent, PYTHONHASHSEED='3')
  assert found == expected


def test_key():
  assert make_record(4).key == '1.3.6.1.4.1.14519.5.2.1.6279.6001.4/551068'


def test_record_bytes_is_close_to_the_size_of_a_record():
  for shape in SHAPES.values():
    size = len(records.RecordEncoder(shape).encode(make_record(0, shape)))
    assert size + 16 <= records.record_bytes(shape) <= size + 16 + 150


def test_features_have_the_documented_types():
  features = records.features((50, 50, 1))
  found = {name: (f.np_dtype, f.shape) for name, f in features.items()}
  del found['seriesuid']
  assert found == {
    'image': (np.int16, (50, 50, 1)),
    'label': (np.int64, ()),
    'candidate_id': (np.int64, ()),
    'subset': (np.int64, ()),
    'center_xyz_mm': (np.float64, (3,)),
    'center_zyx': (np.float32, (3,)),
    'spacing_xyz_mm': (np.float32, (3,)),
    'nodule_id': (np.int64, ()),
    'diameter_mm': (np.float32, ()),
    'excluded': (np.bool_, ()),
  }
  assert features['label'].names == ['non_nodule', 'nodule']


def test_shard_name_is_that_of_tfds():
  import tensorflow_datasets as tfds

  template = tfds.core.ShardedFileTemplate(
    data_dir='/data',
    dataset_name=records.DATASET_NAME,
    split='train',
    filetype_suffix='tfrecord',
  )
  expected = [path.name for path in template.sharded_filepaths(12)]
  assert [records.shard_name('train', i, 12) for i in range(12)] == expected


def test_shard_name_is_parsed():
  name = records.shard_name('validation', 3, 12)
  assert records.parse_shard_name(name) == ('validation', 3)


@pytest.mark.parametrize(
  'name',
  [
    *('', 'train', 'luna16_patches-train.tfrecord-3-of-4'),
    pytest.param(
      records.shard_name('x' * 300, 0, 1), id='longer than file systems allow'
    ),
  ],
)
def test_other_file_names_are_rejected(name):
  with pytest.raises(ValueError, match='not the file name of a shard'):
    records.parse_shard_name(name)
