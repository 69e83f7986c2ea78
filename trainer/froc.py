"""Scores a submission as LUNA16's official script does: FROC curve and CPM.

    luna16-froc --submission=predictions.csv --annotations=annotations.csv
      --annotations_excluded=annotations_excluded.csv --seriesuids=seriesuids.csv
      --output_dir=/tmp/froc

The submission has the columns seriesuid, coordX, coordY, coordZ and probability; the
list of scans has one seriesuid a line. The output folder gets froc.json (counts,
sensitivities, CPM), froc.csv (the curve with its thresholds) and froc.png.
"""

from __future__ import annotations

from collections.abc import Sequence
import csv
import dataclasses
import json
import math
import os
import pathlib
import sys
from typing import Any

from absl import flags
import numpy as np

from luna_tfds import candidates
from luna_tfds import cli
from luna_tfds.errors import UsageError
from model import froc

_BLUE = '#1f5fa8'

FLAGS = cli.new_flags()

_SUBMISSION = flags.DEFINE_string(
  'submission', None, 'CSV of the marks to score.', flag_values=FLAGS
)
_ANNOTATIONS = flags.DEFINE_string(
  'annotations', None, 'annotations.csv: the nodules to find.', flag_values=FLAGS
)
_ANNOTATIONS_EXCLUDED = flags.DEFINE_string(
  'annotations_excluded',
  None,
  'annotations_excluded.csv: findings on which a mark is ignored. Without it such '
  'marks are false positives.',
  flag_values=FLAGS,
)
_SERIESUIDS = flags.DEFINE_string(
  'seriesuids', None, 'List of the scans to score, one a line.', flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Folder for froc.json, froc.csv and froc.png.', flag_values=FLAGS
)
_BOOTSTRAP = flags.DEFINE_integer(
  'bootstrap',
  1000,
  'Resamples of the scans for the 95% confidence band; 0 for none.',
  lower_bound=0,
  flag_values=FLAGS,
)
_MAX_MARKS_PER_SCAN = flags.DEFINE_integer(
  'max_marks_per_scan',
  froc.MAX_MARKS_PER_SCAN,
  'Of a scan with more marks the most probable are scored.',
  lower_bound=1,
  flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Seed of the resamples.', lower_bound=0, flag_values=FLAGS
)


@dataclasses.dataclass(frozen=True)
class FrocResult:
  """A scored submission.

  Attributes:
    counts: what became of nodules and marks.
    curve: the FROC curve.
    band: its confidence band; None without bootstrap.
    warnings: what the reader of the figures should know, a line each.
    settings: max_marks_per_scan, bootstrap and seed.
  """

  counts: froc.Counts
  curve: froc.Curve
  band: froc.Band | None
  warnings: tuple[str, ...]
  settings: dict[str, int]

  @property
  def cpm(self) -> float:
    """Mean sensitivity at 1/8 to 8 false positives per scan."""
    return froc.cpm(self.curve)

  def to_json(self) -> dict[str, Any]:
    """Returns what froc.json holds; a figure that is undefined is None."""
    counts = self.counts
    fields = {
      **dataclasses.asdict(counts),
      'sensitivity_ceiling': counts.nodules_reachable / counts.nodules,
      'sensitivity_ceiling_after_cap': counts.true_positives / counts.nodules,
      'false_positives_per_scan': list(froc.FPS_PER_SCAN),
      'sensitivity': self.curve.sensitivity_at(froc.FPS_PER_SCAN).tolist(),
      'cpm': self.cpm,
    }
    if self.band:
      for name, interval in (
        ('sensitivity', self.band.sensitivity_at_points),
        ('cpm', self.band.cpm),
      ):
        for part, values in dataclasses.asdict(interval).items():
          fields[f'{name}_{part}'] = _without_nan(values)
    return {**fields, **self.settings, 'warnings': list(self.warnings)}


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; see the module."""
  return cli.run('luna16-froc', __doc__, main, FLAGS, argv)


def main(unused: Sequence[str]) -> None:
  """Reads the tables, scores, writes the files and prints the CPM."""
  paths = [
    pathlib.Path(cli.required(flag)).expanduser()
    for flag in (_SUBMISSION, _ANNOTATIONS, _SERIESUIDS, _OUTPUT_DIR)
  ]
  submission_csv, annotations_csv, seriesuids_csv, output_dir = paths
  excluded_csv = _ANNOTATIONS_EXCLUDED.value
  seriesuids = read_seriesuids(seriesuids_csv)
  submission = candidates.read_table(submission_csv, 'probability')
  annotations = candidates.read_findings(annotations_csv)
  excluded = None
  if excluded_csv:
    excluded = candidates.read_findings(pathlib.Path(excluded_csv).expanduser())
  _make_folder(output_dir)
  result = score_submission(
    submission,
    annotations,
    excluded,
    seriesuids,
    max_marks_per_scan=_MAX_MARKS_PER_SCAN.value,
    bootstrap=_BOOTSTRAP.value,
    seed=_SEED.value,
  )
  for warning in result.warnings:
    print(f'luna16-froc: warning: {warning}', file=sys.stderr)
  write_outputs(result, output_dir)
  print(
    f'{_cpm_text(result)}; {result.counts.true_positives} of {result.counts.nodules} '
    f'nodules found in {result.counts.scans} scans; {output_dir / "froc.json"}'
  )


def read_seriesuids(path: pathlib.Path) -> list[str]:
  """Reads the list of scans: one seriesuid a line, with or without a header.

  Raises:
    UsageError: the file cannot be read, is empty, or names a scan twice.
  """
  try:
    lines = path.read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(f'{path}: cannot be read: {error}') from error
  first_line: dict[str, int] = {}
  for number, line in enumerate(lines, start=1):
    seriesuid = line.strip()
    if not seriesuid or (not first_line and seriesuid == 'seriesuid'):
      continue
    if ',' in seriesuid:
      raise UsageError(
        f'{path}, line {number}: one seriesuid a line is expected, found {seriesuid!r}'
      )
    if seriesuid in first_line:
      raise UsageError(
        f'{path}, line {number}: the seriesuid {seriesuid} stands in line '
        f'{first_line[seriesuid]} already; remove one'
      )
    first_line[seriesuid] = number
  if not first_line:
    raise UsageError(f'{path}: names no scan; expected one seriesuid a line')
  return list(first_line)


def score_submission(
  submission: candidates.Table,
  annotations: candidates.Table,
  excluded: candidates.Table | None,
  seriesuids: Sequence[str],
  *,
  max_marks_per_scan: int = froc.MAX_MARKS_PER_SCAN,
  bootstrap: int = 1000,
  seed: int = 0,
) -> FrocResult:
  """Scores marks as LUNA16's official script does.

  Args:
    submission: marks; `values` is the probability.
    annotations: nodules; `values` is the diameter in mm.
    excluded: findings on which marks are ignored; None for none.
    seriesuids: scans to score. Marks and findings of others are left out.
    max_marks_per_scan: the most probable marks of a scan that count.
    bootstrap: resamples for the confidence band; 0 for none.
    seed: of the resamples.

  Raises:
    UsageError: the scans hold no nodule, or no mark is in any of them.
    ValueError: a number is out of range, or a probability is not finite.
  """
  scan_of = {seriesuid: scan for scan, seriesuid in enumerate(seriesuids)}
  listed = _scans(submission, scan_of) >= 0
  if not listed.any():
    raise UsageError(
      f'no mark of the submission lies in one of the {len(scan_of)} scans of the list; '
      f'check that --submission and --seriesuids belong together'
    )
  marks = submission[listed]
  nodules = _findings(annotations, scan_of)
  if not len(nodules.scan):
    raise UsageError(
      f'no nodule of the annotations lies in one of the {len(scan_of)} scans of the '
      'list; check that --annotations and --seriesuids belong together'
    )
  entries, counts = froc.evaluate(
    froc.Marks(_scans(marks, scan_of), marks.xyz_mm, marks.values),
    nodules,
    None if excluded is None else _findings(excluded, scan_of),
    len(scan_of),
    max_marks_per_scan,
  )
  return FrocResult(
    counts=counts,
    curve=froc.froc_curve(entries),
    band=froc.bootstrap_band(entries, bootstrap, seed) if bootstrap else None,
    warnings=tuple(
      _warnings(submission[~listed], excluded is None, counts, max_marks_per_scan)
    ),
    settings={
      'max_marks_per_scan': max_marks_per_scan,
      'bootstrap': bootstrap,
      'seed': seed,
    },
  )


def write_outputs(result: FrocResult, output_dir: pathlib.Path) -> None:
  """Writes froc.csv, froc.png and froc.json, the last of them last.

  Args:
    result: of `score_submission`.
    output_dir: made if it is missing.
  """
  output_dir.mkdir(parents=True, exist_ok=True)
  _write_csv(result, output_dir / 'froc.csv')
  _draw(result).savefig(output_dir / 'froc.png', dpi=150)
  text = json.dumps(result.to_json(), indent=2, allow_nan=False)
  (output_dir / 'froc.json').write_text(text + '\n')


def _scans(table: candidates.Table, scan_of: dict[str, int]) -> np.ndarray:
  """Returns the [n] scan number of each row, -1 for a scan that is not listed."""
  return np.array([scan_of.get(uid, -1) for uid in table.seriesuids], np.int64)


def _findings(table: candidates.Table, scan_of: dict[str, int]) -> froc.Findings:
  """Returns the findings of the listed scans as spheres."""
  scans = _scans(table, scan_of)
  table, scans = table[scans >= 0], scans[scans >= 0]
  return froc.Findings(scans, table.xyz_mm, candidates.radii_mm(table.values))


def _warnings(
  unknown: candidates.Table, no_excluded: bool, counts: froc.Counts, max_marks: int
) -> list[str]:
  """Says what makes the figures other than one may think.

  Args:
    unknown: marks in scans that are not listed.
    no_excluded: whether the excluded findings were not given.
    counts: of the evaluation.
    max_marks: marks of a scan that count.
  """
  lines = []
  if len(unknown):
    lines.append(
      f'{len(unknown)} marks lie in {len(set(unknown.seriesuids))} scans that are not '
      f'in the list and are left out; the first is {unknown.seriesuids[0]}'
    )
  if no_excluded:
    lines.append(
      'annotations_excluded is not given: marks on excluded findings count as false '
      'positives, by which the CPM falls by about 0.1'
    )
  if counts.marks_lost_to_ties:
    lines.append(
      f'{counts.marks_lost_to_ties} marks in {counts.scans_with_lost_ties} scans are '
      f'dropped since they tie at the cap of {max_marks} marks a scan; write '
      'probabilities with more digits'
    )
  return lines


def _write_csv(result: FrocResult, path: pathlib.Path) -> None:
  """Writes one row a point of the curve, and the band there where it is defined."""
  curve, band = result.curve, result.band
  columns = {
    'false_positives_per_scan': curve.fps_per_scan,
    'sensitivity': curve.sensitivity,
    'threshold': curve.threshold,
  }
  if band:
    for part, values in dataclasses.asdict(band.sensitivity).items():
      columns[f'sensitivity_{part}'] = np.interp(
        curve.fps_per_scan, band.fps_per_scan, values, left=math.nan, right=math.nan
      )
  with path.open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    for row in zip(*(values.tolist() for values in columns.values())):
      writer.writerow(['' if math.isnan(value) else value for value in row])


def _draw(result: FrocResult) -> Any:
  """Draws the curve from 1/8 to 8 false positives per scan, as LUNA16 shows it."""
  from matplotlib import figure

  curve, band, points = result.curve, result.band, froc.FPS_PER_SCAN
  fig = figure.Figure(figsize=(7, 5), layout='constrained')
  axes = fig.add_subplot()
  if band:
    axes.fill_between(
      band.fps_per_scan,
      band.sensitivity.lower,
      band.sensitivity.upper,
      color=_BLUE,
      alpha=0.2,
      lw=0,
      label=f'95% of {result.settings["bootstrap"]} resamples',
    )
  # Straight lines between points bend on this axis, so points are put in between. The
  # sort is stable: where the curve rises upright its own points stay in order.
  between = np.geomspace(points[0], points[-1], 500)
  fps_per_scan = np.append(curve.fps_per_scan, between)
  sensitivity = np.append(curve.sensitivity, curve.sensitivity_at(between))
  order = np.argsort(fps_per_scan, kind='stable')
  order = order[fps_per_scan[order] >= points[0]]
  axes.plot(fps_per_scan[order], sensitivity[order], color=_BLUE, label='FROC')
  axes.plot(points, curve.sensitivity_at(points), 'o', c=_BLUE, ms=4, clip_on=False)
  axes.set_xscale('log', base=2)
  axes.set_xticks(points, [f'{point:g}' for point in points])
  axes.set_xlim(points[0], points[-1])
  axes.set_yticks(np.linspace(0, 1, 11))
  axes.set_ylim(0, 1.02)
  axes.grid(lw=0.5, alpha=0.6)
  axes.set_xlabel('Average number of false positives per scan')
  axes.set_ylabel('Sensitivity')
  axes.set_title(f'FROC performance: {_cpm_text(result)}')
  axes.legend(loc='lower right')
  return fig


def _cpm_text(result: FrocResult) -> str:
  text = f'CPM {result.cpm:.3f}'
  if result.band and np.isfinite(result.band.cpm.mean):
    text += f' (95%: {result.band.cpm.lower:.3f} to {result.band.cpm.upper:.3f})'
  return text


def _make_folder(path: pathlib.Path) -> None:
  """Makes the output folder before the work, so that nothing is worked out in vain."""
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(f'--output_dir {path} cannot be made: {error.strerror}') from error
  if not os.access(path, os.W_OK | os.X_OK):
    raise UsageError(f'--output_dir {path} is not writable')


def _without_nan(values: np.ndarray) -> Any:
  if np.ndim(values):
    return [_without_nan(value) for value in values]
  return None if math.isnan(values) else float(values)


if __name__ == '__main__':
  sys.exit(run())
