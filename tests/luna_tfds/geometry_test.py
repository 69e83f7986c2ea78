import itertools
import re

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import SimpleITK as sitk

from luna_tfds import geometry

# The 48 axis-aligned directions: column k is the world direction of stored axis k.
SIGNED_PERMUTATIONS = [
  tuple((np.eye(3)[:, list(axes)] * signs).ravel().tolist())
  for axes in itertools.permutations(range(3))
  for signs in itertools.product((1, -1), repeat=3)
]

coordinates = st.floats(-1000, 1000, allow_nan=False)
spacings = st.floats(0.25, 5)
points = st.tuples(coordinates, coordinates, coordinates)
grids = st.builds(
  geometry.Grid,
  shape_zyx=st.tuples(*[st.integers(1, 600)] * 3),
  spacing_xyz_mm=st.tuples(spacings, spacings, spacings),
  origin_xyz_mm=points,
  direction=st.sampled_from(SIGNED_PERMUTATIONS),
)


def image_of(grid):
  image = sitk.Image((1, 1, 1), sitk.sitkInt16)  # its size is irrelevant
  image.SetSpacing(grid.spacing_xyz_mm)
  image.SetOrigin(grid.origin_xyz_mm)
  image.SetDirection(grid.direction)
  return image


def numbered(shape_zyx):
  return np.arange(np.prod(shape_zyx), dtype=np.int16).reshape(shape_zyx)


def test_world_to_voxel_by_hand():
  grid = geometry.Grid((100, 512, 512), (0.5, 0.25, 2.0), (-100.0, 50.0, -300.0))
  found = geometry.world_to_voxel(
    [[-90.0, 51.0, -297.0], [-100.25, 50.0, -300.0]], grid
  )
  np.testing.assert_array_equal(found, [[1.5, 4.0, 20.0], [0.0, 0.0, -0.5]])


def test_world_to_voxel_of_a_flipped_scan_by_hand():
  flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
  grid = geometry.Grid(
    (100, 512, 512), (0.5, 0.25, 2.0), (100.0, 50.0, -300.0), flipped
  )
  np.testing.assert_array_equal(
    geometry.world_to_voxel([90.0, 51.0, -296.0], grid), [2.0, -4.0, 20.0]
  )


def test_voxel_to_world_by_hand():
  grid = geometry.Grid((100, 512, 512), (0.5, 0.25, 2.0), (-100.0, 50.0, -300.0))
  np.testing.assert_array_equal(
    geometry.voxel_to_world([1.5, 4.0, 20.0], grid), [-90.0, 51.0, -297.0]
  )


def test_first_voxel_is_at_the_origin():
  grid = geometry.Grid((9, 9, 9), (0.7, 0.7, 2.5), (1.0, 2.0, 3.0))
  np.testing.assert_array_equal(geometry.voxel_to_world([0, 0, 0], grid), [1, 2, 3])


@hypothesis.given(grid=grids, point=points)
def test_world_to_voxel_and_back(grid, point):
  index = geometry.world_to_voxel(point, grid)
  np.testing.assert_allclose(geometry.voxel_to_world(index, grid), point, atol=1e-8)


@hypothesis.given(grid=grids, index=points)
def test_voxel_to_world_and_back(grid, index):
  point = geometry.voxel_to_world(index, grid)
  np.testing.assert_allclose(geometry.world_to_voxel(point, grid), index, atol=1e-7)


@hypothesis.given(grid=grids, point=points)
def test_world_to_voxel_equals_simpleitk(grid, point):
  expected = image_of(grid).TransformPhysicalPointToContinuousIndex(point)
  np.testing.assert_allclose(
    geometry.world_to_voxel(point, grid), expected[::-1], rtol=1e-9, atol=1e-7
  )


@hypothesis.given(grid=grids, index=points)
def test_voxel_to_world_equals_simpleitk(grid, index):
  expected = image_of(grid).TransformContinuousIndexToPhysicalPoint(index[::-1])
  np.testing.assert_allclose(
    geometry.voxel_to_world(index, grid), expected, rtol=1e-9, atol=1e-7
  )


def test_points_keep_their_leading_axes():
  grid = geometry.Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
  assert geometry.world_to_voxel(np.zeros((2, 7, 3)), grid).shape == (2, 7, 3)


@pytest.mark.parametrize(
  ('function', 'argument'),
  [
    (geometry.world_to_voxel, 'points_xyz_mm'),
    (geometry.voxel_to_world, 'indices_zyx'),
  ],
)
@pytest.mark.parametrize('shape', [(2,), (3, 2), ()])
def test_points_need_three_coordinates(function, argument, shape):
  grid = geometry.Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
  problem = f'the last axis of {argument} must be 3. Received: {shape}'
  with pytest.raises(ValueError, match=f'^{re.escape(problem)}$'):
    function(np.zeros(shape), grid)


@pytest.mark.parametrize('direction', SIGNED_PERMUTATIONS)
def test_orient_equals_simpleitk(direction):
  stored = numbered((3, 4, 5))
  image = sitk.GetImageFromArray(stored)
  image.SetSpacing((0.7, 0.8, 1.5))
  image.SetOrigin((-10.0, 20.5, -300.25))
  image.SetDirection(direction)
  expected = sitk.DICOMOrient(image, 'LPS')
  grid, orientation = geometry.orient(
    geometry.Grid((3, 4, 5), image.GetSpacing(), image.GetOrigin(), direction)
  )
  np.testing.assert_array_equal(
    orientation.apply(stored), sitk.GetArrayFromImage(expected)
  )
  assert grid.shape_zyx == expected.GetSize()[::-1]
  np.testing.assert_allclose(grid.spacing_xyz_mm, expected.GetSpacing())
  np.testing.assert_allclose(grid.origin_xyz_mm, expected.GetOrigin())
  assert grid.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize('direction', SIGNED_PERMUTATIONS)
def test_orient_keeps_the_world_position_of_every_voxel(direction):
  stored_grid = geometry.Grid((3, 4, 5), (0.7, 0.8, 1.5), (-10, 20.5, -300), direction)
  stored = numbered((3, 4, 5))
  grid, orientation = geometry.orient(stored_grid)
  oriented = orientation.apply(stored)
  for index in np.ndindex(oriented.shape):
    point = geometry.voxel_to_world(index, grid)
    stored_index = np.rint(geometry.world_to_voxel(point, stored_grid)).astype(int)
    assert oriented[index] == stored[tuple(stored_index)]


def test_orient_by_hand_on_a_flipped_scan():
  flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
  grid, orientation = geometry.orient(
    geometry.Grid((10, 20, 30), (0.5, 0.25, 2.0), (100.0, 50.0, -7.0), flipped)
  )
  # The last voxel of a row: 29 steps of 0.5 mm against x.
  assert grid.origin_xyz_mm == (85.5, 45.25, -7.0)
  assert grid.shape_zyx == (10, 20, 30)
  assert orientation.flipped == (False, True, True)
  array = numbered((10, 20, 30))
  assert orientation.apply(array)[3, 4, 5] == array[3, 20 - 1 - 4, 30 - 1 - 5]


@hypothesis.given(
  direction=st.sampled_from(SIGNED_PERMUTATIONS),
  shape=st.tuples(*[st.integers(1, 7)] * 3),
  data=st.data(),
)
def test_box_as_stored(direction, shape, data):
  stored = numbered(shape)
  grid, orientation = geometry.orient(
    geometry.Grid(shape, (0.7, 0.8, 1.5), (0.0, 0.0, 0.0), direction)
  )
  start = [data.draw(st.integers(0, n - 1)) for n in grid.shape_zyx]
  size = [data.draw(st.integers(1, n - s)) for n, s in zip(grid.shape_zyx, start)]
  box = geometry.Box(tuple(start), tuple(size))
  box_as_stored = orientation.box_as_stored(box, grid.shape_zyx)
  assert min(box_as_stored.start_zyx) >= 0
  region = stored[box_as_stored.slices()]
  oriented = orientation.apply(stored)
  np.testing.assert_array_equal(orientation.apply(region), oriented[box.slices()])


@pytest.mark.parametrize('noise', [1e-7, 1e-4])
def test_direction_may_be_noisy_in_the_last_digits(noise):
  noisy = (1.0, noise, 0.0, -noise, 1.0, 0.0, 0.0, 0.0, 1.0)
  grid = geometry.Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), noisy)
  assert geometry.orient(grid)[1].flipped == (False, False, False)


@pytest.mark.parametrize(
  'direction',
  [
    (np.cos(0.1), -np.sin(0.1), 0, np.sin(0.1), np.cos(0.1), 0, 0, 0, 1),
    (1, 0, 0, 0, 1, 0, 0, 0.01, 1),
    (1, 0, 0, 1, 0, 0, 0, 0, 1),
    (1, 0, 0, 0, 1, 0, 0, 0, 0),
    (2, 0, 0, 0, 1, 0, 0, 0, 1),
  ],
)
def test_oblique_or_singular_directions_raise(direction):
  grid = geometry.Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction)
  with pytest.raises(ValueError, match='oblique'):
    geometry.orient(grid)


def test_the_error_shows_the_oblique_direction_with_four_decimals():
  direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.123456, 0.0, 1.0)
  grid = geometry.Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction)
  problem = (
    'the direction [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.1235, 0.0, 1.0]] is oblique: '
    'the axes of the scan are not parallel to x, y and z; resample the scan to an '
    'axis-aligned grid'
  )
  with pytest.raises(ValueError, match=f'^{re.escape(problem)}$'):
    geometry.orient(grid)


@pytest.mark.parametrize('wrong', [0.0, -0.7, float('nan'), float('inf')])
@pytest.mark.parametrize('axis', [0, 1, 2])
def test_spacing_must_be_positive(wrong, axis):
  spacing = [0.7, 0.7, 1.5]
  spacing[axis] = wrong
  with pytest.raises(ValueError, match='spacing must be positive'):
    geometry.Grid((4, 5, 6), tuple(spacing), (0.0, 0.0, 0.0))


def test_origin_and_direction_must_be_finite():
  nan = float('nan')
  with pytest.raises(ValueError, match='origin must be finite'):
    geometry.Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, nan, 0.0))
  with pytest.raises(ValueError, match='direction must be finite'):
    geometry.Grid((4, 5, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (nan,) * 9)


def test_shape_must_hold_voxels():
  with pytest.raises(ValueError, match='no voxels'):
    geometry.Grid((4, 0, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
  ('index', 'voxel'),
  [
    (2.4, 2),
    (2.5, 3),
    (3.5, 4),
    (-0.4, 0),
    (-0.5, 0),
    (-0.6, -1),
    (-1.5, -1),
    (7.0, 7),
    # The last bits of a division do not decide: 0.35 / 0.1 is 3.4999999999999996.
    (0.35 / 0.1, 4),
    # Nine decimals do.
    (2.4999999996, 3),
    (2.4999999994, 2),
  ],
)
def test_nearest_voxel_rounds_halves_up(index, voxel):
  found = geometry.nearest_voxel([index, 0.0, 0.0])
  assert found.dtype == np.int64
  assert found.tolist() == [voxel, 0, 0]


def test_nearest_voxel_of_single_precision():
  # Rounded to nine decimals in single precision, 4.5 would be 4.4999995.
  assert geometry.nearest_voxel(np.array([4.5, 6.5], np.float32)).tolist() == [5, 7]


def test_num_voxels_and_array_order():
  grid = geometry.Grid((764, 4000, 4000), (0.5, 0.6, 0.7), (0.0, 0.0, 0.0))
  assert grid.num_voxels == 12_224_000_000
  assert grid.spacing_zyx_mm == (0.7, 0.6, 0.5)
