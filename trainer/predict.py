"""Scores candidates of a new scan with a trained model.

    luna16-predict --workdir=/tmp/run --scan=patient.nii.gz --candidates=points.csv
      --output=submission.csv

The scan is a .mhd, a NIfTI file or a folder of DICOM slices. The candidates are a CSV
with seriesuid, coordX, coordY, coordZ in mm, LPS as in LUNA16. The patches are cut by the
same code as those of training; the output is in LUNA16's submission format.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import re
import sys

from absl import flags

from luna_tfds import geometry
from luna_tfds import tables
from luna_tfds.command_line import cli
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.text_format import count_text
from trainer import shared_flags

FLAGS = cli.new_flags()

# A DICOM unique identifier, as LUNA16's files are called.
_SERIESUID_PATTERN = re.compile(r'[0-9]+(\.[0-9]+)+')

_WORKDIR = shared_flags.define_workdir(FLAGS)
_SCAN = flags.DEFINE_string(
  'scan',
  None,
  'The scan: .mhd, NIfTI or a DICOM folder (required).',
  flag_values=FLAGS,
)
_CANDIDATES = flags.DEFINE_string(
  'candidates',
  None,
  'CSV of points in mm (required); rows of other scans are left out.',
  flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'CSV to write (required).', flag_values=FLAGS
)
_SERIESUID = flags.DEFINE_string(
  'seriesuid',
  None,
  'Whose rows of the candidates to score (default: the name of the scan file, or all '
  'rows if they name one scan only and the name of the file is not that of another '
  'series).',
  flag_values=FLAGS,
)
_TTA = shared_flags.define_tta(FLAGS)


def main(unused: list[str]) -> None:
  """Flags -> patches -> probabilities -> CSV."""
  del unused
  from luna_tfds.scans import scan as scan_lib
  from trainer import workdir as workdir_lib

  output = _output_path()
  workdir, _ = workdir_lib.open_workdir(cli.required_value(_WORKDIR))
  spec = workdir.patch_spec()
  scan_path = cli.required_path(_SCAN)
  candidates_csv = cli.required_path(_CANDIDATES)
  table = tables.read_candidates(candidates_csv, labelled=False)
  with scan_lib.opened_scan(scan_path) as scan:
    table = _rows_of_scan(table, candidates_csv, scan_path, _SERIESUID.value)
    _check_centers(table, candidates_csv, scan.grid, scan_path)
    cli.load_tensorflow()
    from trainer.scoring import inference
    from trainer.scoring import prediction_files
    from trainer.scoring import scan_inference
    from trainer.scoring.operating_point import OperatingPoint

    tta = _TTA.value
    if tta is None:
      tta = OperatingPoint.read(workdir.operating_point).tta
    model = inference.load_model(workdir.model)
    probabilities = scan_inference.predict_points(
      [model], scan, table.xyz_mm, spec, tta=tta
    )
  try:
    prediction_files.write_submission(
      output, table.seriesuids, table.xyz_mm, probabilities
    )
  except OSError as error:
    raise UsageError(f'{output}: cannot be written: {error.strerror}') from error
  print(f'{count_text(len(table), "candidate")} scored: {output}', file=sys.stderr)


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-predict', __doc__, main, FLAGS, argv)


def _output_path() -> pathlib.Path:
  """Returns --output, a file that can be written: scoring may take long."""
  output = cli.required_path(_OUTPUT)
  for flag in (_CANDIDATES, _SCAN):
    given = cli.optional_path(flag)
    if given is not None and given.resolve() == output.resolve():
      raise UsageError(
        f'--output: {output} is the file of --{flag.name}; give another --output'
      )
  folder = output.parent
  if isinstance(output, store_path.StorePath):
    cli.make_output_folder(folder, _OUTPUT.name)
    return output
  if not folder.is_dir():
    raise UsageError(
      f'--output: there is no folder {folder}; make it, or give another --output'
    )
  if output.is_dir():
    raise UsageError(f'--output: {output} is a folder; give the name of a file in it')
  if output.exists() and not output.is_file():
    # As /dev/stdout: it would be replaced by a file.
    raise UsageError(
      f'--output: {output} is no regular file; give the name of a file to write'
    )
  if not os.access(folder, os.W_OK | os.X_OK):
    raise UsageError(
      f'--output: the folder {folder} cannot be written; give another --output'
    )
  return output


def _check_centers(
  table: tables.PointTable,
  candidates_csv: pathlib.Path,
  grid: geometry.Grid,
  scan_path: pathlib.Path,
) -> None:
  """Warns of centres outside the scan: their patches hold mostly padding.

  Raises:
    UsageError: all are outside.
  """
  outside = geometry.is_outside(geometry.world_to_voxel(table.xyz_mm, grid), grid)
  count = int(outside.sum())
  if not count:
    return
  first = f'the first in row {table.rows[outside][0]} (from 0)'
  if count == len(table):
    raise UsageError(
      f'{candidates_csv}: no centre is inside the scan {scan_path}: '
      f'{count_text(count, "candidate")}, {first}; give the candidates of this scan, in '
      'mm, LPS'
    )
  print(
    f'luna16-predict: warning: {candidates_csv}: the centres of {count} of '
    f'{len(table)} candidates are outside the scan {scan_path}, {first}; their '
    'probabilities mean nothing',
    file=sys.stderr,
  )


def _rows_of_scan(
  table: tables.PointTable,
  candidates_csv: pathlib.Path,
  scan_path: pathlib.Path,
  seriesuid: str | None,
) -> tables.PointTable:
  """Returns the candidates of the scan.

  Raises:
    UsageError: there is none.
  """
  groups = table.groups()
  name = seriesuid or scan_path.name.partition('.mhd')[0].partition('.nii')[0]
  if name in groups:
    return table[groups[name]]
  if seriesuid is None and len(groups) == 1:
    (other,) = groups
    if _SERIESUID_PATTERN.fullmatch(name) and _SERIESUID_PATTERN.fullmatch(other):
      raise UsageError(
        f'{candidates_csv}: its rows are of the scan {other}, and --scan is {name}; give '
        f'the rows of this scan, or --seriesuid={other} if they are'
      )
    return table
  raise UsageError(
    f'{candidates_csv}: no row of the scan {name}; it names '
    f'{count_text(len(groups), "scan")}: give one of them as --seriesuid'
  )


if __name__ == '__main__':
  sys.exit(run())
