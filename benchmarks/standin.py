"""A stand-in of the whole LUNA16 challenge at true scale, for benchmarks.

    python benchmarks/standin.py --luna16=METADATA --out_dir=/tmp/luna16

From the sizes, spacings and positions of the 888 scans (`geometry_888.csv`) and LUNA16's
annotations it makes a download of the challenge's very shape: sparse `.raw` files, which
cost no disk and read as zeros, and as many candidates as the V1 list has.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import shutil

import numpy as np

_CANDIDATES, _POSITIVES = 551_065, 1_351


def make(luna16: pathlib.Path, out_dir: pathlib.Path, scans: int = 888) -> None:
  """Writes the stand-in.

  Args:
    luna16: holds geometry_888.csv, annotations.csv and annotations_excluded.csv.
    out_dir: where the download appears.
    scans: how many of the 888 scans, spread evenly over the list.
  """
  with open(luna16 / 'geometry_888.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  rows = [rows[i] for i in np.linspace(0, len(rows) - 1, scans).astype(int)]
  with open(luna16 / 'annotations.csv', newline='') as file:
    annotations = list(csv.DictReader(file))
  out_dir.mkdir(parents=True, exist_ok=True)
  for row in rows:
    _write_scan(out_dir, row)
  for name in ('annotations.csv', 'annotations_excluded.csv'):
    shutil.copy(luna16 / name, out_dir / name)
  _write_candidates(out_dir / 'candidates.csv', rows, annotations)


def _write_scan(out_dir: pathlib.Path, row: dict[str, str]) -> None:
  folder = out_dir / f'subset{row["subset"]}'
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
  with path.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['seriesuid', 'coordX', 'coordY', 'coordZ', 'class'])
    positives = round(_POSITIVES * share)
    for k in range(positives):
      a = hits[k % len(hits)]
      center = [float(a[f'coord{c}']) + 0.2 * (k // len(hits)) for c in 'XYZ']
      writer.writerow([a['seriesuid'], *(f'{c:.6f}' for c in center), 1])
    negatives = round(_CANDIDATES * share) - positives
    for which, count in enumerate(np.bincount(rng.integers(len(rows), size=negatives))):
      row = rows[which]
      size = np.array([int(row[f'size_{a}']) for a in 'xyz'])
      spacing = np.array([float(row[f'spacing_{a}']) for a in 'xyz'])
      offset = np.array([float(row[f'offset_{a}']) for a in 'xyz'])
      signs = np.array([float(row[f'dir_{a}']) for a in 'xyz'])
      voxels = rng.uniform(0.15, 0.85, (count, 3)) * size
      for point in offset + signs * voxels * spacing:
        writer.writerow([row['seriesuid'], *(f'{c:.6f}' for c in point), 0])


def main() -> None:
  """Parses the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--luna16', type=pathlib.Path, required=True)
  parser.add_argument('--out_dir', type=pathlib.Path, required=True)
  parser.add_argument('--scans', type=int, default=888)
  options = parser.parse_args()
  make(options.luna16, options.out_dir, options.scans)


if __name__ == '__main__':
  main()
