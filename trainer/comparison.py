"""Compares two models on the same records, scan by scan; for `luna16-evaluate`."""

from __future__ import annotations

from typing import Any

import numpy as np

from luna_tfds.errors import UsageError
from model import bootstrap
from trainer import breakdown
from trainer import evaluation
from trainer import scoring

COMPARED = ('pr_auc', 'roc_auc', 'f1')


def compare(
  a: evaluation.Evaluation,
  b: evaluation.Evaluation,
  resampling: breakdown.Resampling,
) -> dict[str, Any]:
  """Tells how much better one model is than another, and how sure that is.

  Both are resampled together: what makes a scan hard for both cancels out, so the
  interval of the difference is narrower than those of the two figures would suggest.

  Args:
    a: one evaluation.
    b: the other, of the same records; they may be patches of another kind.
    resampling: of the scans; at least one resample.

  Returns:
    What compare.json holds: `a`, `b` (the workdirs), and under `figures` for each of
    `COMPARED` the values of both, `difference` (a - b), `lower` and `upper`.

  Raises:
    UsageError: the records differ.
  """
  rows_a, rows_b = _same_records(a, b)
  scan, scans = bootstrap.number_groups(a.scores.groups[rows_a])
  of_a, of_b = (
    bootstrap.Figures(
      one.scores.labels[rows],
      one.scores.probabilities[rows],
      one.decision.called[rows],
      scan,
      scans,
    )
    for one, rows in ((a, rows_a), (b, rows_b))
  )
  differences = bootstrap.paired_intervals(
    of_a, of_b, scans, COMPARED, resampling.resamples, resampling.seed
  )
  return {
    'a': str(a.runs[0].workdir.path),
    'b': str(b.runs[0].workdir.path),
    'dataset_a': a.metrics['dataset'],
    'dataset_b': b.metrics['dataset'],
    'split': a.metrics['split'],
    'records': len(rows_a),
    'resampled': 'scans' if evaluation.scans_known(a.scores) else 'records',
    'resamples': resampling.resamples,
    'seed': resampling.seed,
    'figures': {
      name: {'a': a.metrics[name], 'b': b.metrics[name], **differences[name]}
      for name in COMPARED
    },
  }


def table(result: dict[str, Any]) -> str:
  """Returns the comparison as text, a line a figure."""
  lines = [
    f'a: {result["a"]}',
    f'b: {result["b"]}',
    f'{result["split"]}: {result["records"]} records, {result["resamples"]} resamples '
    f'of {result["resampled"]}',
    f'  {"":<8}{"a":>9}{"b":>9}{"a - b":>10}   95 % interval',
  ]
  for name, row in result['figures'].items():
    a, b, difference, lower, upper = (
      '–' if row[part] is None else f'{row[part]:{sign}.4f}'
      for part, sign in (
        ('a', ''),
        ('b', ''),
        ('difference', '+'),
        ('lower', '+'),
        ('upper', '+'),
      )
    )
    lines.append(f'  {name:<8}{a:>9}{b:>9}{difference:>10}   {lower} … {upper}')
  return '\n'.join(lines)


def _same_records(
  a: evaluation.Evaluation, b: evaluation.Evaluation
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows of both in one order."""
  one, other = a.source, b.source
  if one.fingerprint and (one.fingerprint, one.split) == (
    other.fingerprint,
    other.split,
  ):
    return np.arange(len(a.scores)), np.arange(len(b.scores))
  keys_a, rows_a = _sorted_keys(a.scores)
  keys_b, rows_b = _sorted_keys(b.scores)
  same = np.array_equal(keys_a, keys_b) and np.array_equal(
    a.scores.labels[rows_a], b.scores.labels[rows_b]
  )
  if not same:
    raise UsageError(
      f'--compare: the {len(a.scores)} records of {a.metrics["dataset"]} '
      f'({a.runs[0].workdir.path}) are not the {len(b.scores)} of '
      f'{b.metrics["dataset"]} ({b.runs[0].workdir.path}); compare models on the same '
      'candidates: give --dataset and --split'
    )
  return rows_a, rows_b


def _sorted_keys(scores: scoring.Scores) -> tuple[np.ndarray, np.ndarray]:
  keys = np.array(scores.keys)
  rows = np.argsort(keys, kind='stable')
  return keys[rows], rows
