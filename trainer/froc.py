"""Scores a submission as LUNA16's official script does: FROC curve and CPM.

    luna16-froc --submission=predictions.csv --annotations=annotations.csv
      --annotations_excluded=annotations_excluded.csv --seriesuids=seriesuids.csv
      --output_dir=/tmp/froc

The submission has the columns seriesuid, coordX, coordY, coordZ and probability; the
list of scans has one seriesuid on each line. The output folder gets froc.json (counts,
sensitivities, CPM), froc.csv (the curve with its thresholds) and froc.png.
"""

from __future__ import annotations

from collections.abc import Sequence
import sys

from absl import flags

from luna_tfds import tables
from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags
from luna_tfds.text_format import count_text
from model.metrics import froc_matching
from trainer import bootstrap_progress
from trainer import shared_flags

FLAGS = cli.new_flags()

_SUBMISSION = flags.DEFINE_string(
  'submission', None, 'CSV of the marks to score (required).', flag_values=FLAGS
)
_REFERENCE = shared_flags.define_froc_reference(FLAGS, 'required', 'required')
_OUTPUT_DIR = cli_flags.define_output_dir(
  FLAGS, 'Folder for froc.json, froc.csv and froc.png (required).'
)
_BOOTSTRAP = shared_flags.define_bootstrap(FLAGS)
_SEED = cli_flags.define_seed(FLAGS, 'Seed of the resampling.')
_MAX_MARKS_PER_SCAN = flags.DEFINE_integer(
  'max_marks_per_scan',
  froc_matching.MAX_MARKS_PER_SCAN,
  'Of a scan with more marks only the most probable are scored.',
  lower_bound=1,
  flag_values=FLAGS,
)


def main(unused: list[str]) -> None:
  """Flags -> tables -> score -> files."""
  del unused
  resampling = shared_flags.resampling(_BOOTSTRAP.value, _SEED.value)
  submission_csv = cli.required_path(_SUBMISSION)
  annotations_csv = cli.required_path(_REFERENCE.annotations)
  seriesuids_csv = cli.required_path(_REFERENCE.seriesuids)
  output_dir = cli.required_path(_OUTPUT_DIR)
  from trainer.scoring import froc_submission

  reference = froc_submission.read_reference(
    annotations_csv,
    cli.optional_path(_REFERENCE.annotations_excluded),
    seriesuids_csv,
  )
  submission = tables.read_table(submission_csv, 'probability')
  cli.make_output_folder(output_dir, _OUTPUT_DIR.name)
  assert reference is not None  # the annotations are required
  with bootstrap_progress.displayed():
    result = froc_submission.score_submission(
      submission, reference, resampling, _MAX_MARKS_PER_SCAN.value
    )
  for warning in result.warnings:
    print(f'luna16-froc: warning: {warning}', file=sys.stderr)
  from trainer.pictures import froc_plot

  froc_plot.save_froc_curve(
    result.curve,
    result.band,
    str(result),
    output_dir / 'froc.png',
  )
  froc_submission.write_result(result, output_dir)
  counts = result.counts
  print(
    f'{result}; {counts.true_positives} of {counts.nodules} nodules found in '
    f'{count_text(counts.scans, "scan")}; {output_dir / "froc.json"}'
  )


def run(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run('luna16-froc', __doc__, main, FLAGS, argv)


if __name__ == '__main__':
  sys.exit(run())
