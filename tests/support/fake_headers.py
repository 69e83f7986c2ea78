"""Downloads of scans without voxels, which a plan does not read."""

import itertools

import fake_data


def write_scans(folder, subset_of):
  """Writes the headers of scans; `subset_of` is the subset of each seriesuid."""
  for name, subset in subset_of.items():
    path = folder / f'subset{subset}' / f'{name}.mhd'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'ObjectType = Image\nElementDataFile = {name}.raw\n')
    path.with_suffix('.raw').write_bytes(b'\0\0')


def write_tables(folder, candidates, nodules=(), excluded=()):
  """Writes the CSV files; see `fake_data` for their rows."""
  fake_data.write_candidates(folder / 'candidates.csv', candidates)
  fake_data.write_findings(folder / 'annotations.csv', nodules)
  fake_data.write_findings(folder / 'annotations_excluded.csv', excluded)


def rows_of(counts):
  """Returns mixed rows of candidates; counts are (positives, negatives) of each scan."""
  per_scan = [
    [
      (name, float(i), 2.0, 3.0, int(i < positives))
      for i in range(positives + negatives)
    ]
    for name, (positives, negatives) in counts.items()
  ]
  mixed = itertools.chain(*itertools.zip_longest(*per_scan))
  return [row for row in mixed if row is not None]


def write_five_scans(folder):
  """Writes scans of subsets 0, 0, 1, 8 and 9, and candidates of one not on disk.

  Returns:
    The folder.
  """
  write_scans(folder, {'a': 0, 'b': 0, 'c': 1, 'd': 8, 'e': 9})
  counts = {name: (1, 4) for name in 'abcde'}
  write_tables(
    folder,
    rows_of({**counts, 'not_on_disk': (2, 2)}),
    nodules=[('a', 0.0, 2.0, 3.0, 3.0)],
    excluded=[('c', 6.0, 2.0, 3.0, -1)],
  )
  return folder
