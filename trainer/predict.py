"""Scores candidates of a new scan with a trained model.

    luna16-predict --workdir=/tmp/run --scan=patient.nii.gz --candidates=points.csv
      --output=submission.csv

The scan is a .mhd, a NIfTI file or a folder of DICOM slices. The candidates are a CSV
with seriesuid, coordX, coordY, coordZ in mm, LPS as in LUNA16. Patches are cut by the
extractor that cut those of training; the output is LUNA16's submission form.
"""

from __future__ import annotations

from collections.abc import Sequence
import csv
import pathlib
import sys
from typing import Any

from absl import flags
import numpy as np

from luna_tfds import cli
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', flag_values=FLAGS)
_SCAN = flags.DEFINE_string(
  'scan', None, 'The scan: .mhd, NIfTI or a DICOM folder.', flag_values=FLAGS
)
_CANDIDATES = flags.DEFINE_string(
  'candidates',
  None,
  'CSV of points in mm; rows of other scans are left out.',
  flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string('output', None, 'CSV to write.', flag_values=FLAGS)
_SERIESUID = flags.DEFINE_string(
  'seriesuid',
  None,
  "Whose rows of the candidates to take; default: the scan's file name, or all rows if "
  'the file names one scan only.',
  flag_values=FLAGS,
)
_TTA = flags.DEFINE_boolean(
  'tta', None, 'Average over the eight turns and mirrors.', flag_values=FLAGS
)

_BATCH = 256


def main(unused: list[str]) -> None:
  """Flags -> patches -> probabilities -> CSV."""
  del unused
  from luna_tfds import candidates
  from luna_tfds import scan as scan_lib

  workdir = cli.required(_WORKDIR)
  output = pathlib.Path(cli.required(_OUTPUT)).expanduser()
  scan = scan_lib.open_scan(pathlib.Path(cli.required(_SCAN)).expanduser())
  path = pathlib.Path(cli.required(_CANDIDATES)).expanduser()
  table = candidates.read_candidates(path, labelled=False)
  table = _of_scan(table, path, scan.path, _SERIESUID.value)
  cli.load_tensorflow()
  probabilities = predict(workdir, scan, table.xyz_mm, tta=_TTA.value)
  try:
    write_submission(output, table, probabilities)
  except OSError as error:
    raise UsageError(f'{output}: cannot be written: {error.strerror}') from error
  print(f'{len(table)} candidates scored: {output}', file=sys.stderr)


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-predict', __doc__, main, FLAGS, argv)


def predict(
  path: str, scan: Any, centers_xyz_mm: np.ndarray, *, tta: bool | None = None
) -> np.ndarray:
  """Scores points of a scan.

  Args:
    path: workdir of a trained model.
    scan: from `luna_tfds.scan.open_scan`.
    centers_xyz_mm: [n, 3] world points in mm.
    tta: whether to average over the eight turns; None as trained.

  Returns:
    [n] float64 probabilities.

  Raises:
    UsageError: the workdir holds no model, or not what patches it was trained on.
  """
  import keras

  from luna_tfds import extractor
  from trainer import scoring
  from trainer import workdir as workdir_lib

  workdir, _ = workdir_lib.open_workdir(path)
  model = keras.models.load_model(workdir.model, compile=False)
  point = workdir_lib.read_json(workdir.operating_point)
  spec = workdir_lib.patch_spec(workdir)
  extraction = iter(extractor.Extraction(scan, centers_xyz_mm, spec))
  probabilities = np.zeros(len(centers_xyz_mm))
  for start in range(0, len(probabilities), _BATCH):
    stop = min(start + _BATCH, len(probabilities))
    images = np.stack([next(extraction).image for _ in range(start, stop)])
    probabilities[start:stop] = scoring.predict(
      [model], images, tta=point['tta'] if tta is None else tta
    )
  return probabilities


def write_submission(path: pathlib.Path, table: Any, probabilities: np.ndarray) -> None:
  """Writes LUNA16's submission form: seriesuid,coordX,coordY,coordZ,probability.

  Args:
    path: the CSV.
    table: the candidates, a `candidates.Table`.
    probabilities: [n].
  """
  from trainer import scoring

  with path.open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['seriesuid', 'coordX', 'coordY', 'coordZ', 'probability'])
    for seriesuid, xyz, probability in zip(
      table.seriesuids, table.xyz_mm, probabilities
    ):
      writer.writerow(
        [
          seriesuid,
          *(f'{c:.10g}' for c in xyz),
          scoring.format_probability(probability),
        ]
      )


def _of_scan(
  table: Any, path: pathlib.Path, scan_path: pathlib.Path, seriesuid: str | None
) -> Any:
  """The rows of the scan at hand."""
  groups = table.groups()
  name = seriesuid or scan_path.name.partition('.mhd')[0].partition('.nii')[0]
  if name in groups:
    return table[groups[name]]
  if seriesuid is None and len(groups) == 1:
    return table
  raise UsageError(
    f'{path}: no row of the scan {name}; it names {len(groups)} scans: say which one by '
    '--seriesuid'
  )


if __name__ == '__main__':
  sys.exit(run())
