import csv
import json
import pathlib

import numpy as np
import pytest

from luna_tfds import tables
from luna_tfds.errors import UsageError
from model.metrics.resampling import Resampling
from trainer.scoring import froc_submission
from trainer.scoring.froc_submission import FrocReference

_GOLDEN = pathlib.Path(__file__).parents[4] / 'shared' / 'data' / 'froc'
NO_INTERVALS = Resampling(resamples=0)


def make_table(rows, value_column):
  """Makes a table of (scan, x in mm, value) rows."""
  names, x, values = zip(*rows) if rows else ((), (), ())
  zeros = np.zeros(len(rows))
  return tables.PointTable(
    seriesuids=np.array(names, object),
    xyz_mm=np.stack([np.array(x, float), zeros, zeros], axis=-1),
    values=np.array(values, float),
    rows=np.arange(len(rows)),
    value_column=value_column,
  )


def marks_of(*rows):
  return make_table(rows, 'probability')


def findings_of(*rows):
  return make_table(rows, 'diameter_mm')


def test_marks_and_nodules_of_unlisted_scans_are_left_out():
  result = froc_submission.score_submission(
    marks_of(('a', 0, 0.9), ('b', 0, 0.8), ('unlisted', 0, 0.7), ('unlisted', 5, 0.7)),
    FrocReference(findings_of(('a', 0, 6), ('unlisted', 0, 6)), None, ('b', 'a')),
    NO_INTERVALS,
  )
  counts = result.counts
  assert (counts.scans, counts.nodules, counts.candidates) == (2, 1, 2)
  assert (counts.true_positives, counts.false_positives) == (1, 1)
  assert result.band is None
  unlisted, without_excluded = result.warnings
  assert unlisted.startswith('2 marks in 1 scan outside the list left out')
  assert unlisted.endswith('unlisted')
  assert 'lowers the CPM' in without_excluded


def test_without_a_list_the_scans_with_a_mark_are_scored():
  result = froc_submission.score_submission(
    marks_of(('a', 0, 0.9), ('b', 0, 0.8)),
    FrocReference(findings_of(('a', 0, 6), ('c', 0, 6)), findings_of(), None),
    NO_INTERVALS,
  )
  assert (result.counts.scans, result.counts.nodules) == (2, 1)
  assert result.warnings == ()


def test_marks_dropped_because_of_ties_are_reported():
  ties = [('a', 10 * k, 0.5) for k in range(5)]
  result = froc_submission.score_submission(
    marks_of(*ties, ('a', 0, 0.6)),
    FrocReference(findings_of(('a', 0, 6)), findings_of(), ('a',)),
    NO_INTERVALS,
    max_marks_per_scan=4,
  )
  (warning,) = result.warnings
  assert warning.startswith('3 marks in 1 scan dropped because of ties at the limit')
  assert result.to_json()['max_marks_per_scan'] == 4


@pytest.mark.parametrize(('mark', 'nodule'), [('x', 'a'), ('a', 'x')])
def test_marks_and_nodules_must_be_in_listed_scans(mark, nodule):
  with pytest.raises(UsageError, match='belong together'):
    froc_submission.score_submission(
      marks_of((mark, 0, 0.6)),
      FrocReference(findings_of((nodule, 0, 6)), None, ('a',)),
      NO_INTERVALS,
    )


def small_result(resampling):
  """Two scans, two nodules, one of them found, and one false positive."""
  return froc_submission.score_submission(
    marks_of(('a', 0, 0.9), ('b', 0, 0.8)),
    FrocReference(findings_of(('a', 0, 6), ('a', 50, 6)), findings_of(), ('a', 'b')),
    resampling,
  )


def test_result_as_text():
  assert str(small_result(NO_INTERVALS)) == 'CPM 0.500'
  text = str(small_result(Resampling(resamples=50)))
  assert text == 'CPM 0.500 (95 %: 0.500 to 0.500)'


def test_curve_and_band_are_written(tmp_path):
  result = small_result(Resampling(resamples=50))
  froc_submission.write_result(result, tmp_path)
  fields = json.loads((tmp_path / 'froc.json').read_text())
  assert fields == result.to_json()
  assert fields['bootstrap']['resamples'] == 50
  assert fields['sensitivity'] == [0.5] * 7
  with (tmp_path / 'froc.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['threshold'] for row in rows] == ['inf', '0.9', '0.8']
  assert [float(row['sensitivity']) for row in rows] == [0, 0.5, 0.5]
  assert [float(row['false_positives_per_scan']) for row in rows] == [0, 0, 0.5]
  # The band begins at 1/8 false positives per scan.
  assert [row['sensitivity_lower'] for row in rows] == ['', '', '0.5']


def test_undefined_band_is_null(tmp_path):
  """A resample can hold only the scan without nodules."""
  seed = next(
    s for s in range(99) if np.random.default_rng(s).integers(2, size=2).min() == 1
  )
  result = small_result(Resampling(resamples=1, seed=seed))
  assert str(result) == 'CPM 0.500'
  froc_submission.write_result(result, tmp_path)
  fields = json.loads((tmp_path / 'froc.json').read_text())
  assert fields['cpm_mean'] is None
  assert fields['sensitivity_lower'] == [None] * 7


def test_seriesuids_are_read_with_or_without_a_header(tmp_path):
  path = tmp_path / 'seriesuids.csv'
  for text in ('1.2\n1.3', 'seriesuid\r\n1.2\r\n\r\n1.3\r\n', '\ufeff1.2\n 1.3 \n'):
    path.write_bytes(text.encode())
    assert froc_submission.read_seriesuids(path) == ('1.2', '1.3')


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (None, 'cannot be read'),
    (b'\xff\xfe', 'cannot be read'),
    (b'seriesuid\n\n', 'names no scan'),
    (b'1.2\n1.3\n1.2\n', 'line 3: the seriesuid 1.2 is in line 1 already'),
    (b'seriesuid,coordX\n', 'line 1: one seriesuid on each line is expected'),
  ],
)
def test_a_wrong_list_of_scans_is_refused(content, message, tmp_path):
  path = tmp_path / 'seriesuids.csv'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UsageError, match=rf'seriesuids\.csv.*{message}'):
    froc_submission.read_seriesuids(path)


def test_reference_is_found_in_the_download(download):
  reference = froc_submission.read_reference(
    None, None, None, luna_dir=download.folder, subsets=(0, 3)
  )
  expected = {uid for uid, scan in download.scans.items() if scan.subset in (0, 3)}
  assert set(reference.seriesuids) == expected
  assert len(reference.nodules) == len(download.nodules)
  assert len(reference.excluded) == len(download.excluded)


def test_subsets_that_a_download_lacks_list_no_scans(download, monkeypatch):
  scans = froc_submission.download_lib.find_scans(download.folder)
  partial = {uid: scan for uid, scan in scans.items() if scan.subset != 9}
  monkeypatch.setattr(froc_submission.download_lib, 'find_scans', lambda _: partial)
  reference = froc_submission.read_reference(
    None, None, None, luna_dir=download.folder, subsets=(9,)
  )
  assert reference.seriesuids is None


def test_given_files_come_before_those_of_the_download(download, tmp_path):
  annotations = tmp_path / 'annotations.csv'
  annotations.write_text('seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,0,0,0,6\n')
  seriesuids = tmp_path / 'seriesuids.csv'
  seriesuids.write_text('1.2\n')
  reference = froc_submission.read_reference(
    annotations, None, seriesuids, luna_dir=download.folder
  )
  assert reference.seriesuids == ('1.2',)
  assert len(reference.nodules) == 1
  assert len(reference.excluded) == len(download.excluded)


def test_without_annotations_there_is_no_reference():
  assert froc_submission.read_reference(None, None, None) is None


@pytest.mark.skipif(
  not _GOLDEN.is_dir(), reason='the golden case of the official script is not here'
)
def test_golden_case_of_the_official_script():
  reference = froc_submission.read_reference(
    *(
      _GOLDEN / f'{name}.csv'
      for name in ('annotations', 'annotations_excluded', 'seriesuids')
    )
  )
  marks = tables.read_table(_GOLDEN / 'submission.csv', 'probability')
  found = froc_submission.score_submission(marks, reference, NO_INTERVALS).to_json()
  expected = json.loads((_GOLDEN / 'expected.json').read_text())
  del expected['source']
  # The script prints sensitivities with 9 digits and no CPM: that is their mean.
  cpm = expected.pop('cpm')
  for name, value in expected.items():
    assert np.round(found[name], 9).tolist() == value, name
  assert np.round(np.mean(np.round(found['sensitivity'], 9)), 9) == cpm
  assert found['cpm'] == pytest.approx(cpm, abs=1e-9)


@pytest.mark.parametrize('text', ['a,{}', '{0}\n{0}'])
def test_a_long_seriesuid_is_shortened_in_the_message(text, tmp_path):
  path = tmp_path / 'seriesuids.csv'
  path.write_text(text.format('9' * 5000))
  with pytest.raises(UsageError, match='999') as caught:
    froc_submission.read_seriesuids(path)
  assert len(str(caught.value)) < 400
