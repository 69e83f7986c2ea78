"""Scores candidates of a new scan with a trained model.

    luna16-predict --workdir=/tmp/run --scan=patient.nii.gz --candidates=points.csv
      --output=submission.csv

The scan is a .mhd, a NIfTI file or a folder of DICOM slices. The candidates are a CSV
with seriesuid, coordX, coordY, coordZ in mm, LPS as in LUNA16. The patches are cut by the
same code as those of training; the output is in LUNA16's submission format.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import sys

from absl import flags

from luna_tfds import cli
from luna_tfds import tables
from luna_tfds.errors import UsageError
from luna_tfds.text_format import count_text
from trainer import shared_flags

FLAGS = cli.new_flags()

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
  'rows if they name one scan only).',
  flag_values=FLAGS,
)
_TTA = shared_flags.define_tta(FLAGS)


def main(unused: list[str]) -> None:
  """Flags -> patches -> probabilities -> CSV."""
  del unused
  from luna_tfds import scan as scan_lib
  from trainer import workdir as workdir_lib

  workdir, _ = workdir_lib.open_workdir(cli.required_value(_WORKDIR))
  spec = workdir.patch_spec()
  output = cli.required_path(_OUTPUT)
  if not output.parent.is_dir():
    raise UsageError(
      f'--output: there is no folder {output.parent}; make it, or give another --output'
    )
  scan = scan_lib.open_scan(cli.required_path(_SCAN))
  candidates_csv = cli.required_path(_CANDIDATES)
  table = tables.read_candidates(candidates_csv, labelled=False)
  table = _rows_of_scan(table, candidates_csv, scan.path, _SERIESUID.value)
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


def _rows_of_scan(
  table: tables.PointTable,
  candidates_csv: pathlib.Path,
  scan_path: pathlib.Path,
  seriesuid: str | None,
) -> tables.PointTable:
  """Returns the candidates of the scan."""
  groups = table.groups()
  name = seriesuid or scan_path.name.partition('.mhd')[0].partition('.nii')[0]
  if name in groups:
    return table[groups[name]]
  if seriesuid is None and len(groups) == 1:
    return table
  raise UsageError(
    f'{candidates_csv}: no row of the scan {name}; it names '
    f'{count_text(len(groups), "scan")}: give one of them as --seriesuid'
  )


if __name__ == '__main__':
  sys.exit(run())
