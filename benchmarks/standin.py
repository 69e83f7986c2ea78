"""Writes a fake of the complete LUNA16 download, for benchmarks.

    python benchmarks/standin.py --luna16=METADATA --output_dir=/tmp/luna16

The sizes, spacings and positions of the scans (`geometry_888.csv`) and the annotations
are LUNA16's, and there are as many candidates as in the V1 list. The `.raw` files are
sparse: they need no disk space and read as zeros.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import shutil

import numpy as np

from luna_tfds import tables

_CANDIDATES, _POSITIVES = 551_065, 1_351


def make(luna16: pathlib.Path, output_dir: pathlib.Path, scans: int = 888) -> None:
  """Writes the download.

  Args:
    luna16: contains geometry_888.csv, annotations.csv and annotations_excluded.csv.
    output_dir: folder to write.
    scans: number of scans, evenly spaced in the list of 888; beyond that, the list is
      repeated, with other names.
  """
  with open(luna16 / 'geometry_888.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  if scans > len(rows):
    rows = [_copy(rows[i % len(rows)], i // len(rows)) for i in range(scans)]
  else:
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, scans).astype(int)]
  with open(luna16 / 'annotations.csv', newline='') as file:
    annotations = list(csv.DictReader(file))
  output_dir.mkdir(parents=True, exist_ok=True)
  for row in rows:
    _write_scan(output_dir, row)
  for name in ('annotations.csv', 'annotations_excluded.csv'):
    shutil.copy(luna16 / name, output_dir / name)
  _write_candidates(output_dir / 'candidates.csv', rows, annotations)


def _copy(row: dict[str, str], number: int) -> dict[str, str]:
  """Returns a row with a name of its own; copy 0 is the row itself."""
  name = f'{row["seriesuid"]}.{number}' if number else row['seriesuid']
  return {**row, 'seriesuid': name}


def _write_scan(output_dir: pathlib.Path, row: dict[str, str]) -> None:
  folder = output_dir / f'subset{row["subset"]}'
  folder.mkdir(exist_ok=True)
  name = row['seriesuid']
  size = [int(row[f'size_{a}']) for a in 'xyz']
  direction = ' '.join(
    row[f'dir_{"xyz"[i]}'] if i == j else '0' for i in range(3) for j in range(3)
  )
  (folder / f'{name}.mhd').write_text(
    'ObjectType = Image\nNDims = 3\nBinaryData = True\n'
    'BinaryDataByteOrderMSB = False\nCompressedData = False\n'
    f'TransformMatrix = {direction}\n'
    f'Offset = {row["offset_x"]} {row["offset_y"]} {row["offset_z"]}\n'
    f'ElementSpacing = {row["spacing_x"]} {row["spacing_y"]} {row["spacing_z"]}\n'
    f'DimSize = {size[0]} {size[1]} {size[2]}\n'
    f'ElementType = MET_SHORT\nElementDataFile = {name}.raw\n'
  )
  with open(folder / f'{name}.raw', 'wb') as file:
    file.truncate(2 * int(np.prod(size, dtype=np.int64)))


def _write_candidates(
  path: pathlib.Path, rows: list[dict[str, str]], annotations: list[dict[str, str]]
) -> None:
  rng = np.random.default_rng(0)
  names = {row['seriesuid'] for row in rows}
  share = len(rows) / 888
  hits = [a for a in annotations if a['seriesuid'] in names]
  points = []
  positives = round(_POSITIVES * share)
  for k in range(positives):
    a = hits[k % len(hits)]
    center = [float(a[f'coord{c}']) + 0.2 * (k // len(hits)) for c in 'XYZ']
    points.append((a['seriesuid'], *(f'{c:.6f}' for c in center), 1))
  negatives = round(_CANDIDATES * share) - positives
  for which, count in enumerate(np.bincount(rng.integers(len(rows), size=negatives))):
    row = rows[which]
    size = np.array([int(row[f'size_{a}']) for a in 'xyz'])
    spacing = np.array([float(row[f'spacing_{a}']) for a in 'xyz'])
    offset = np.array([float(row[f'offset_{a}']) for a in 'xyz'])
    signs = np.array([float(row[f'dir_{a}']) for a in 'xyz'])
    voxels = rng.uniform(0.15, 0.85, (count, 3)) * size
    for point in offset + signs * voxels * spacing:
      points.append((row['seriesuid'], *(f'{c:.6f}' for c in point), 0))
  tables.write_table(path, 'class', points)


def main() -> None:
  """Parses the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--luna16', type=pathlib.Path, required=True)
  parser.add_argument('--output_dir', '--out_dir', type=pathlib.Path, required=True)
  parser.add_argument('--scans', type=int, default=888)
  options = parser.parse_args()
  make(options.luna16, options.output_dir, options.scans)


if __name__ == '__main__':
  main()
