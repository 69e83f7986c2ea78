"""Readers of scans: MetaImage, NIfTI, DICOM."""

import functools
import random
import zlib

import fake_data
import input_files
import mutations
import numpy as np
from readers import Reader
from readers import mutate_one

from luna_tfds import extractor
from luna_tfds import patches
from luna_tfds.scans import scan as scan_lib

_SHAPE_ZYX = (3, 4, 5)
_SPEC = patches.PatchSpec((1, 6, 6))
# Lies beside the folder of the input, and has the right length for the scan.
OUTSIDE_VOXEL = 0x5A5A
_MODULES = ('luna_tfds.scans.image_files', 'luna_tfds.scans.meta_image_files')
_MODULES += ('luna_tfds.scans.nifti_files', 'luna_tfds.scans.dicom_series')
_MODULES += ('luna_tfds.scans.scan', 'luna_tfds.geometry')


def _read(folder, pattern):
  path = folder if pattern is None else next(iter(sorted(folder.glob(pattern))))
  outside = folder.parent / 'outside.raw'
  if not outside.exists():
    outside.write_bytes(np.full(_SHAPE_ZYX, OUTSIDE_VOXEL, np.int16).tobytes())
  scan = scan_lib.open_scan(path)
  if scan.grid.num_voxels > 2**20:  # valid, and slow to read completely
    return
  voxels = scan.read()
  if voxels.shape != scan.grid.shape_zyx or voxels.dtype != np.int16:
    raise AssertionError(f'read {voxels.dtype} {voxels.shape}, not {scan.grid}')
  if (voxels == OUTSIDE_VOXEL).all():
    raise AssertionError('read voxels of a file outside of the folder')
  center = np.array([scan.grid.origin_xyz_mm])
  for patch in extractor.Extraction(scan, center, _SPEC):
    if patch.image.shape != _SPEC.image_shape:
      raise AssertionError(f'patch of shape {patch.image.shape}')


def _scan_seeds(folder, suffix):
  seeds = []
  for number, fields in enumerate(
    ({}, {'compressed': True}, {'axes': (2, 0, 1), 'flips': (True, False, False)})
  ):
    fake = fake_data.make_scan(number, shape_zyx=_SHAPE_ZYX, **fields)
    fake.write(folder / str(number), suffix)
    seeds.append(input_files.read(folder / str(number)))
  return seeds


def _mutate_voxels(data, rng):
  if rng.random() < 0.02:
    return mutations.zeros()
  if rng.random() < 0.3:
    try:
      voxels = zlib.decompressobj().decompress(data, 2**16)
    except zlib.error:
      return mutations.mutate_bytes(data, rng)
    return zlib.compress(mutations.mutate_bytes(voxels, rng))
  return mutations.mutate_bytes(data, rng)


def _mutate_mha(data, rng):
  if rng.random() < 0.7:
    return mutations.mutate_header(data, rng)
  return mutations.mutate_bytes(data, rng)


def _dicom_seeds(folder):
  fake = fake_data.make_scan(0, shape_zyx=_SHAPE_ZYX)
  folder.mkdir()
  fake_data.write_dicom(folder / 'plain', fake)
  return [input_files.read(folder / 'plain')]


def _mutate_dicom(files, rng):
  files = dict(files)
  name = rng.choice(sorted(files))
  kind = rng.randrange(10)
  if kind == 0 and len(files) > 1:
    del files[name]
  elif kind == 1:
    files[rng.choice(('x.dcm', 'DICOMDIR', 'notes.txt', 'x'))] = files[name]
  elif kind == 2:  # the same change in all slices
    seed = rng.randrange(2**30)
    files = {
      n: mutations.mutate_dicom(c, random.Random(seed)) for n, c in files.items()
    }
  else:
    files[name] = mutations.mutate_dicom(files[name], rng)
  return files


def _mutate_nifti_gz(data, rng):
  return mutations.mutate_gzip(data, rng, mutations.mutate_nifti)


def _nifti_seeds(folder):
  return _scan_seeds(folder / 'a', '.nii') + _scan_seeds(folder / 'b', '.nii.gz')


_ALL = (
  Reader(
    'mhd',
    functools.partial(_scan_seeds, suffix='.mhd'),
    mutate_one(
      _mhd=mutations.mutate_header, _zraw=_mutate_voxels, _raw=mutations.mutate_bytes
    ),
    functools.partial(_read, pattern='*.mhd'),
    _MODULES,
  ),
  Reader(
    'mha',
    functools.partial(_scan_seeds, suffix='.mha'),
    mutate_one(_mha=_mutate_mha),
    functools.partial(_read, pattern='*.mha'),
    _MODULES,
  ),
  Reader(
    'nifti',
    _nifti_seeds,
    mutate_one(_nii=mutations.mutate_nifti, _gz=_mutate_nifti_gz),
    functools.partial(_read, pattern='*.nii*'),
    _MODULES,
  ),
  Reader(
    'dicom',
    _dicom_seeds,
    _mutate_dicom,
    functools.partial(_read, pattern=None),
    _MODULES,
  ),
)
READERS = {reader.name: reader for reader in _ALL}
