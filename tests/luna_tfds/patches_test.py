import dataclasses
import json

import hypothesis
from hypothesis import strategies as st
import numpy as np
import oracles
import pytest
import SimpleITK as sitk

from luna_tfds import geometry
from luna_tfds import patches

SHAPE = (9, 20, 22)
GRID = geometry.Grid(SHAPE, (0.7, 0.8, 1.5), (-31.5, 12.25, -210.75))

sizes = st.integers(1, 12)
patch_shapes = st.tuples(sizes, sizes, sizes)
# From well outside on one side to well outside on the other.
centers = st.tuples(*[st.floats(-9, n + 9) for n in SHAPE])


@pytest.fixture(scope='module')
def voxels():
  # Down to -3024: what scanners write outside their field of view.
  return np.random.default_rng(0).integers(-3024, 2000, SHAPE).astype(np.int16)


@pytest.fixture(scope='module')
def image(voxels):
  image = sitk.GetImageFromArray(voxels)
  image.SetSpacing(GRID.spacing_xyz_mm)
  image.SetOrigin(GRID.origin_xyz_mm)
  return image


def extract(voxels, center, spec):
  """Reads nothing but the voxels of the source box, as the extractor does."""
  (box,) = patches.source_boxes(center[np.newaxis], GRID, spec)
  inside = box.intersection(SHAPE)
  regions = iter([voxels[inside.slices()]])
  images, padded = patches.make_patches(
    regions, [box], [inside], center[np.newaxis], GRID, spec
  )
  return images[0], padded[0]


def pixels(shape):
  return patches.PatchSpec(shape, None, 'cube')


def millimetres(shape, spacing_mm):
  return patches.PatchSpec(shape, spacing_mm, 'cube')


def test_source_boxes_start_at_the_rounded_centre_minus_half():
  starts = {
    (4.0, 10.0, 11.0): (3, 8, 8),
    (4.4, 10.4, 11.4): (3, 8, 8),
    (4.5, 10.5, 11.5): (4, 9, 9),
    (0.0, 0.0, 0.0): (-1, -2, -3),
    (-0.5, -0.6, 0.49): (-1, -3, -3),
  }
  boxes = patches.source_boxes(np.array(list(starts)), GRID, pixels((3, 4, 6)))
  assert boxes == [geometry.Box(start, (3, 4, 6)) for start in starts.values()]


def test_source_boxes_in_mm_hold_both_neighbours_of_every_sample():
  # Samples at z = 4.2 -+ 2/1.5, y = 10 -+ 1/0.8, x = 11.
  spec = millimetres((3, 2, 1), 2.0)
  boxes = patches.source_boxes(np.array([[4.2, 10.0, 11.0]]), GRID, spec)
  assert boxes == [geometry.Box((2, 8, 11), (5, 5, 2))]


@hypothesis.given(center=centers, shape=patch_shapes)
def test_pixel_patches_are_slices_of_a_padded_scan(voxels, center, shape):
  found, is_padded = extract(voxels, np.array(center), pixels(shape))
  expected = oracles.pixel_block(oracles.padded(voxels), center, shape)
  assert found.dtype == np.int16
  np.testing.assert_array_equal(found[..., 0], expected)
  start = np.floor(np.array(center) + 0.5) - np.array(shape) // 2
  assert is_padded == ((start < 0) | (start + shape > SHAPE)).any()


@hypothesis.given(
  center=centers, shape=patch_shapes, spacing_mm=st.sampled_from([0.5, 0.7, 1.0, 3.3])
)
@hypothesis.settings(max_examples=100)
def test_millimetre_patches_equal_those_of_simpleitk(
  voxels, image, center, shape, spacing_mm
):
  point = geometry.voxel_to_world(center, GRID)
  expected = oracles.mm_block(image, point, shape, spacing_mm)
  found, is_padded = extract(voxels, np.array(center), millimetres(shape, spacing_mm))
  steps = [
    c + (np.arange(n) - (n - 1) / 2) * spacing_mm / s
    for c, n, s in zip(center, shape, GRID.spacing_zyx_mm)
  ]
  # On the very edge of the outermost voxels rounding decides whether a sample is in.
  edge = [np.abs(np.abs(p - (n - 1) / 2) - n / 2) < 1e-6 for p, n in zip(steps, SHAPE)]
  hypothesis.assume(not any(e.any() for e in edge))
  np.testing.assert_allclose(found[..., 0], expected, atol=1)
  outside = [(p < -0.5) | (p > n - 0.5) for p, n in zip(steps, SHAPE)]
  assert is_padded == any(o.any() for o in outside)


def test_millimetre_patch_by_hand():
  ramp = np.zeros(SHAPE, np.int16) + (10 * np.arange(22)).astype(np.int16)
  spec = millimetres((1, 1, 4), 0.35)
  found, _ = extract(ramp, np.array([4.0, 10.0, 11.0]), spec)
  # Samples at x = 11 -+ 0.25 and -+ 0.75 voxels.
  assert found.dtype == np.int16
  assert found.ravel().tolist() == [102, 108, 112, 118]


def test_millimetre_patches_are_interpolated_in_single_precision():
  # 0.01 * 150 is 1.5 in single precision, which rounds to 2, and less than 1.5 in double
  # precision. Another precision would change the bytes of existing datasets.
  scan = np.zeros(SHAPE, np.int16)
  scan[:, :, 12] = 150
  found, _ = extract(scan, np.array([4.0, 10.0, 11.01]), millimetres((1, 1, 1), 1.0))
  assert found.item() == 2


@pytest.mark.parametrize('rounding_error', [-1e-13, 0, 1e-13])
def test_samples_half_a_voxel_beyond_the_border_are_decided_as_in_pixel_patches(
  rounding_error,
):
  # Half-way points belong to the next voxel: -0.5 to voxel 0, 21.5 to voxel 22, outside.
  scan = np.full(SHAPE, 50, np.int16)
  for x, expected in ((-0.5, 50), (21.5, -1000)):
    center = np.array([4.0, 10.0, x + rounding_error])
    for spec in (pixels((1, 1, 1)), millimetres((1, 1, 1), 1.0)):
      found, is_padded = extract(scan, center, spec)
      assert found.item() == expected
      assert is_padded == (expected == -1000)


def test_values_below_air_are_clipped_before_interpolation():
  scan = np.full(SHAPE, -1000, np.int16)
  scan[:, :, :11] = -3024
  scan[:, :, 11:] = 0
  found, _ = extract(scan, np.array([4.0, 10.0, 10.5]), millimetres((1, 1, 1), 1.0))
  assert found.item() == -500
  found, _ = extract(scan, np.array([4.0, 10.0, 5.0]), pixels((1, 1, 1)))
  assert found.item() == -1000


def test_a_patch_that_misses_the_scan_is_air(voxels):
  for center in ([-90.0, 10.0, 11.0], [4.0, 1e6, 11.0], [4.0, 10.0, -1e9]):
    for spec in (pixels((3, 4, 5)), millimetres((3, 4, 5), 1.0)):
      found, is_padded = extract(voxels, np.array(center), spec)
      assert found.dtype == np.int16
      assert (found == -1000).all()
      assert is_padded


def test_the_scan_is_not_modified(voxels):
  before = voxels.copy()
  extract(voxels, np.array([4.0, 10.0, 11.0]), millimetres((9, 9, 9), 1.0))
  extract(voxels, np.array([4.0, 10.0, 11.0]), pixels((9, 9, 9)))
  np.testing.assert_array_equal(voxels, before)


@pytest.mark.parametrize(
  ('spec', 'image_shape'),
  [
    (patches.PatchSpec(), (50, 50, 1)),
    (patches.PatchSpec((1, 8, 12)), (8, 12, 1)),
    (patches.PatchSpec((5, 8, 12), None, 'stack'), (8, 12, 5)),
    (patches.PatchSpec((5, 8, 12), 1.0, 'cube'), (5, 8, 12, 1)),
  ],
)
def test_layouts(spec, image_shape):
  block = np.arange(np.prod(spec.shape_zyx), dtype=np.int16).reshape(spec.shape_zyx)
  (image,) = spec.to_images(block[np.newaxis])
  assert spec.image_shape == image.shape == image_shape
  assert image.flags.c_contiguous
  for z, y, x in np.ndindex(spec.shape_zyx):
    index = (z, y, x, 0) if spec.layout == 'cube' else (y, x, z)
    assert image[index] == block[z, y, x]


def test_channels_of_a_stack_are_the_neighbouring_slices(voxels):
  spec = patches.PatchSpec((3, 6, 8), None, 'stack')
  found, _ = extract(voxels, np.array([4.0, 10.0, 11.0]), spec)
  for channel, z in enumerate((3, 4, 5)):
    expected = np.maximum(voxels[z, 7:13, 7:15], -1000)
    np.testing.assert_array_equal(found[..., channel], expected)


def test_spacing_of_the_image():
  assert patches.PatchSpec().image_spacing_xyz_mm(GRID) == (0.7, 0.8, 1.5)
  spec = patches.PatchSpec((1, 50, 50), 2.5)
  assert spec.image_spacing_xyz_mm(GRID) == (2.5, 2.5, 2.5)


def test_a_spec_is_restored_from_json():
  spec = patches.PatchSpec((5, 8, 12), 1.5, 'cube')
  fields = json.loads(json.dumps(dataclasses.asdict(spec)))
  assert patches.PatchSpec.from_json(fields) == spec


@pytest.mark.parametrize(
  ('fields', 'problem'),
  [
    ({'shape_zyx': (0, 5, 5)}, 'a positive size'),
    ({'shape_zyx': (1, -5, 5)}, 'a positive size'),
    ({'shape_zyx': (5, 5)}, '3 axes'),
    ({'shape_zyx': (2, 5, 5)}, 'must have one slice'),
    ({'layout': 'sagittal'}, 'layout must be one of'),
    ({'shape_zyx': (1, 8192, 8193)}, 'at most 67108864 samples'),
    *(
      ({'spacing_mm': spacing}, r'spacing_mm must be 0\.01 to 100 mm')
      for spacing in (0.0, -1.0, np.nan, np.inf, 1e-300, 0.00999, 100.01, 1e300)
    ),
  ],
)
def test_invalid_specs_are_rejected(fields, problem):
  with pytest.raises(ValueError, match=problem):
    patches.PatchSpec(**fields)


@pytest.mark.parametrize('spacing_mm', [0.01, 100.0])
def test_the_least_and_the_largest_spacing(spacing_mm):
  assert patches.PatchSpec(spacing_mm=spacing_mm).spacing_mm == spacing_mm


def test_the_largest_patch():
  assert patches.PatchSpec((1, 8192, 8192)).image_shape == (8192, 8192, 1)


@hypothesis.given(
  start=st.tuples(*[st.integers(-30, 30)] * 3),
  size=st.tuples(*[st.integers(1, 30)] * 3),
)
def test_intersection_contains_the_common_voxels(start, size):
  box = geometry.Box(start, size)
  inside = box.intersection(SHAPE)
  axes = [range(s, s + n) for s, n in zip(start, size)]
  shared = [[i for i in axis if 0 <= i < n] for axis, n in zip(axes, SHAPE)]
  assert inside.num_voxels == np.prod([len(axis) for axis in shared])
  for first, axis in zip(inside.start_zyx, shared):
    assert not axis or first == axis[0]
