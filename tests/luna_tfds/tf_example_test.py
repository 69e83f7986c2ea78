import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from luna_tfds import tf_example

names = st.text(min_size=1, max_size=200)
lengths = st.sampled_from([0, 1, 127, 128, 129, 16_383, 16_384, 5_000])


def expected(name, kind, values):
  """Returns the bytes that protobuf gives."""
  example = tf_example_pb2.Example()
  getattr(example.features.feature[name], kind).value.extend(values)
  return example.SerializeToString(deterministic=True)


@hypothesis.given(names, st.integers(-(2**63), 2**63 - 1))
def test_int64(name, value):
  found = tf_example.serialize([tf_example.int64_entry(name, value)])
  assert found == expected(name, 'int64_list', [value])


@pytest.mark.parametrize('value', [0, 1, 127, 128, 16_383, 16_384, -1, 2**63 - 1])
def test_int64_at_the_limits_of_its_groups_of_bits(value):
  found = tf_example.serialize([tf_example.int64_entry('a', value)])
  assert found == expected('a', 'int64_list', [value])


@hypothesis.given(names, lengths)
def test_bytes(name, length):
  value = bytes(i % 251 for i in range(length))
  found = tf_example.serialize([tf_example.bytes_entry(name, value)])
  assert found == expected(name, 'bytes_list', [value])


@hypothesis.given(names, st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_float32(name, values):
  content = np.array(values, '<f4').tobytes()
  found = tf_example.serialize([tf_example.float32_entry(name, content)])
  # Protobuf may store another NaN.
  if not np.isnan(values).any():
    assert found == expected(name, 'float_list', values)
  parsed = tf_example_pb2.Example.FromString(found).features.feature[name]
  np.testing.assert_array_equal(parsed.float_list.value, np.array(values, np.float32))


def test_several_features_sorted_by_name():
  example = tf_example_pb2.Example()
  example.features.feature['b'].int64_list.value.append(-1)
  example.features.feature['a'].bytes_list.value.append(b'x' * 300)
  example.features.feature['c'].float_list.value.append(0.5)
  found = tf_example.serialize(
    [
      tf_example.bytes_entry('a', b'x' * 300),
      tf_example.int64_entry('b', -1),
      tf_example.float32_entry('c', np.float32(0.5).tobytes()),
    ]
  )
  assert found == example.SerializeToString(deterministic=True)
