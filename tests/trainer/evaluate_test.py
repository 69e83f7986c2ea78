import csv
import json
import re
import shutil

import fake_source
import keras
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
import tensorflow_datasets as tfds

import luna_tfds  # noqa: F401, registers the dataset
from trainer import evaluate
from trainer import froc
from trainer.report import page

DATASET = 'luna16_patches/axial_50px_all'
EVERYTHING = 'train+validation+test'
QUICK = '--bootstrap=50'

pytestmark = pytest.mark.usefixtures('no_network_pictures')


def run(*arguments):
  return evaluate.run(['luna16-evaluate', QUICK, *map(str, arguments)])


@pytest.fixture(scope='module')
def evaluated(trained, tmp_path_factory):
  """The folder of an evaluation of all scans, with the pictures of the network."""
  folder = tmp_path_factory.mktemp('evaluated')
  code = run(f'--workdir={trained}', f'--split={EVERYTHING}', f'--output_dir={folder}')
  assert code == 0
  return folder


def read_metrics(folder):
  return json.loads((folder / 'metrics.json').read_text())


def read_predictions(folder):
  with (folder / 'predictions.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def column(rows, name, kind=float):
  return np.array([kind(row[name]) for row in rows])


@pytest.fixture(scope='module')
def predictions(evaluated):
  return read_predictions(evaluated)


@pytest.fixture(scope='module')
def counted(predictions):
  """The predictions without excluded findings, which the headline metrics leave out."""
  return [row for row in predictions if row['excluded'] == '0']


@pytest.fixture(scope='module')
def metrics(evaluated):
  return read_metrics(evaluated)


def test_predictions_hold_every_record_once(data_dir, predictions):
  stored = tfds.load(DATASET, data_dir=str(data_dir), split=EVERYTHING)
  expected = {
    (r['seriesuid'].decode(), int(r['candidate_id'])): r for r in tfds.as_numpy(stored)
  }
  keys = [(row['seriesuid'], int(row['candidate_id'])) for row in predictions]
  assert len(set(keys)) == len(keys)
  assert set(keys) == set(expected)
  for key, row in zip(keys, predictions):
    record = expected[key]
    assert int(row['label']) == record['label']
    assert int(row['nodule_id']) == record['nodule_id']
    center = [float(row[f'coord{axis}']) for axis in 'XYZ']
    np.testing.assert_allclose(center, record['center_xyz_mm'], atol=1e-6)


def test_predictions_have_nine_digits(predictions):
  for row in predictions:
    digits = row['probability'].partition('e')[0].replace('.', '').lstrip('0')
    assert len(digits) >= 9, row


def test_metrics_follow_from_the_predictions(counted, metrics):
  labels, p = column(counted, 'label', int), column(counted, 'probability')
  assert metrics['records'] == len(counted)
  assert metrics['nodules'] == labels.sum()
  assert metrics['scans'] == 12
  expected = sklearn_metrics.average_precision_score(labels, p)
  assert metrics['pr_auc'] == pytest.approx(expected)
  assert metrics['roc_auc'] == pytest.approx(sklearn_metrics.roc_auc_score(labels, p))
  assert metrics['brier'] == pytest.approx(sklearn_metrics.brier_score_loss(labels, p))
  row = metrics['operating_points'][-1]
  predicted = p >= row['threshold']
  assert row['target'] == 'recall >= 0.99'
  assert row['recall'] == pytest.approx(sklearn_metrics.recall_score(labels, predicted))
  precision = sklearn_metrics.precision_score(labels, predicted)
  assert row['precision'] == pytest.approx(precision)


def test_metrics_of_all_candidates_include_excluded_findings(predictions, metrics):
  labels, p = column(predictions, 'label', int), column(predictions, 'probability')
  found = metrics['all_candidates']
  assert found['records'] == len(predictions)
  excluded = sum(row['excluded'] == '1' for row in predictions)
  assert metrics['excluded_records'] == excluded > 0
  expected = sklearn_metrics.average_precision_score(labels, p)
  assert found['pr_auc'] == pytest.approx(expected)
  assert found['pr_auc'] < metrics['pr_auc']


def test_metrics_by_subset(counted, metrics):
  labels, p = column(counted, 'label', int), column(counted, 'probability')
  subsets = column(counted, 'subset', int)
  rows = metrics['by_subset']
  assert [row['subset'] for row in rows] == list(range(10))
  for row in rows:
    mask = subsets == row['subset']
    assert row['records'] == mask.sum()
    assert row['nodules'] == labels[mask].sum()
    assert row['scans'] == (2 if row['subset'] in (0, 2) else 1)
    expected = sklearn_metrics.average_precision_score(labels[mask], p[mask])
    assert row['pr_auc'] == pytest.approx(expected)


def test_metrics_by_slice_thickness(download, counted, metrics):
  thickness_mm = np.array(
    [download.scans[row['seriesuid']].spacing_xyz_mm[2] for row in counted]
  )
  rows = {row['bin']: row for row in metrics['by_slice_thickness']}
  assert set(rows) == {'below 1 mm', '1.5 to 2 mm', '2 mm and over'}
  assert rows['below 1 mm']['records'] == np.sum(thickness_mm == 0.625)
  assert rows['1.5 to 2 mm']['records'] == np.sum(thickness_mm == 1.5)
  assert rows['2 mm and over']['records'] == np.sum(thickness_mm == 2.5)


def test_metrics_by_diameter_count_each_nodule_once(download, predictions, metrics):
  (row,) = metrics['by_diameter']  # every nodule has a diameter of 8.5 mm
  positives = [r for r in predictions if r['label'] == '1']
  assert row['bin'] == '5 to 10 mm'
  assert row['records'] == len(positives)
  assert row['nodules'] == len(download.nodules)
  p = column(positives, 'probability')
  assert row['mean_probability'] == pytest.approx(p.mean())


def test_metrics_and_report_are_printed(trained, tmp_path, capsys):
  code = run(f'--workdir={trained}', '--split=validation', f'--output_dir={tmp_path}')
  assert code == 0
  lines = capsys.readouterr().out.splitlines()
  assert re.match(
    r'validation: \d+ records, 1 nodule candidate; \d+ excluded findings? left out',
    lines[0],
  )
  assert lines[-1] == f'report: {tmp_path / "report.html"}'
  # Records of the split chose the stored threshold.
  assert 'two-fold cross-fitting' in read_metrics(tmp_path)['threshold_chosen_on']


def test_results_are_written_to_the_workdir_by_default(trained, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  assert run(f'--workdir={workdir}', '--bootstrap=0') == 0
  assert read_metrics(workdir)['split'] == 'test'
  assert (workdir / 'report.html').is_file()


def test_flags_reach_the_evaluation(trained, tmp_path):
  flags = ['--threshold=0.3', '--tta', '--seed=4', f'--output_dir={tmp_path}']
  assert run(f'--workdir={trained}', *flags) == 0
  found = read_metrics(tmp_path)
  rows = [row for row in read_predictions(tmp_path) if row['excluded'] == '0']
  predicted = column(rows, 'probability') >= 0.3
  labels = column(rows, 'label', int)
  assert (found['threshold'], found['threshold_chosen_on']) == (0.3, 'given')
  assert found['tta'] is True
  assert found['bootstrap'] == {'resamples': 50, 'seed': 4, 'unit': 'scans'}
  matrix = found['confusion_matrix']
  assert matrix['true_positives'] == np.sum(predicted & (labels == 1))
  assert matrix['false_positives'] == np.sum(predicted & (labels == 0))


def test_a_split_of_one_class(trained, tmp_path):
  code = run(f'--workdir={trained}', '--split=test[:1]', f'--output_dir={tmp_path}')
  assert code == 0
  found = read_metrics(tmp_path)
  assert found['records'] == 1
  assert found['pr_auc'] is None
  assert found['operating_points'] == []
  assert found['intervals']['roc_auc'] == [None, None]
  assert 'one class only' in (tmp_path / 'report.html').read_text()


@pytest.mark.slow
def test_ensemble_in_a_list_and_in_several_flags(trained, other_trained, tmp_path):
  paths = shutil.copytree(trained, tmp_path / 'run'), other_trained
  probabilities = {}
  for name, flags in {
    'list': ['--ensemble={},{}'.format(*paths)],
    'flags': [f'--workdir={path}' for path in paths],
  }.items():
    assert run(*flags, '--bootstrap=0', f'--output_dir={tmp_path / name}') == 0
    assert read_metrics(tmp_path / name)['models'] == 2
    rows = read_predictions(tmp_path / name)
    probabilities[name] = column(rows, 'probability')
  np.testing.assert_array_equal(probabilities['flags'], probabilities['list'])


def test_ensemble_writes_to_a_folder_of_its_own(trained, other_trained, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  assert run(f'--ensemble={workdir},{other_trained}', '--bootstrap=0') == 0
  assert read_metrics(workdir / 'ensemble')['models'] == 2
  assert not (workdir / 'metrics.json').exists()


def test_ensemble_on_other_splits_is_refused(
  trained, other_trained, tmp_path, error_line
):
  moved = shutil.copytree(other_trained, tmp_path / 'moved')
  fields = json.loads((moved / 'config.json').read_text())
  fields['config']['validation_split'] = 'test'
  (moved / 'config.json').write_text(json.dumps(fields))
  assert run(f'--ensemble={trained},{moved}', f'--output_dir={tmp_path / "out"}') == 2
  assert 'same splits' in error_line()


def test_compare(trained, other_trained, tmp_path, capsys, evaluate_folders):
  code = run('--compare', trained, other_trained, f'--output_dir={tmp_path}')
  assert code == 0
  found = json.loads((tmp_path / 'compare.json').read_text())
  assert (found['split'], found['bootstrap']['resamples']) == ('test', 50)
  a, b = (
    evaluate_folders(path).result.split_metrics.classification
    for path in (trained, other_trained)
  )
  for name in ('pr_auc', 'roc_auc', 'f1'):
    row = found['metrics'][name]
    assert (row['a'], row['b']) == (a.value(name), b.value(name))
    assert row['difference'] == pytest.approx(row['a'] - row['b'])
    # The split has one scan, so each resample is the split.
    assert row['lower'] == pytest.approx(row['difference'])
  printed = capsys.readouterr().out
  assert f'{a.pr_auc:.4f}' in printed
  assert str(other_trained) in printed
  assert printed.endswith(f'comparison: {tmp_path / "compare.json"}\n')


def test_froc_with_annotations_is_that_of_luna16_froc(
  evaluated, trained, download, tmp_path, monkeypatch
):
  monkeypatch.setattr(page, 'build_page', lambda evaluation, folder: '')
  annotations = (
    f'--annotations={download.folder / "annotations.csv"}',
    f'--annotations_excluded={download.folder / "annotations_excluded.csv"}',
  )
  flags = f'--workdir={trained}', f'--split={EVERYTHING}'
  assert run(*flags, *annotations, f'--output_dir={tmp_path}') == 0
  found = read_metrics(tmp_path)['froc']
  assert found['nodules_counted'] == 'annotated'
  listed = sorted(download.scans)
  (tmp_path / 'seriesuids.csv').write_text('\n'.join(listed) + '\n')
  code = froc.run(
    [
      'luna16-froc',
      QUICK,
      f'--submission={tmp_path / "predictions.csv"}',
      f'--seriesuids={tmp_path / "seriesuids.csv"}',
      f'--output_dir={tmp_path}',
      *annotations,
    ]
  )
  assert code == 0
  assert found == json.loads((tmp_path / 'froc.json').read_text())
  # Every nodule of the fake download is reached by a candidate.
  without = read_metrics(evaluated)['froc']
  assert without['nodules_counted'] == 'reached by candidates'
  assert without['cpm'] == pytest.approx(found['cpm'])
  # As by --annotations, from the folder of the download.
  flags = *flags, f'--luna_dir={download.folder}', f'--output_dir={tmp_path}'
  assert run(*flags) == 0
  assert read_metrics(tmp_path)['froc'] == found


@pytest.mark.parametrize('flag', ['annotations_excluded', 'seriesuids'])
def test_parts_of_a_reference_need_annotations(trained, flag, error_line):
  assert run(f'--workdir={trained}', f'--{flag}=x.csv') == 2
  assert f'--{flag} needs --annotations or --luna_dir' in error_line()


def test_compare_in_one_argument(trained, tmp_path):
  flags = [f'--compare={trained},{trained}', f'--split={EVERYTHING}']
  assert run(*flags, f'--output_dir={tmp_path}') == 0
  rows = json.loads((tmp_path / 'compare.json').read_text())['metrics']
  for row in rows.values():
    assert row['difference'] == row['lower'] == row['upper'] == 0


def test_leaks_are_reported_on_stderr(trained, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(page, 'build_page', lambda evaluation, folder: '')
  folder = f'--output_dir={tmp_path}'
  split = '--split=test+train[:7]'
  assert run(f'--workdir={trained}', split, folder) == 0
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('luna16-evaluate: warning: 7 of the ')
  assert read_metrics(tmp_path)['warnings'] == [line.partition('warning: ')[2]]
  assert run(f'--compare={trained},{trained}', split, folder) == 0
  lines = capsys.readouterr().err.splitlines()
  found = [f'{trained}: 7 of the ' in line for line in lines]
  assert found == [True, True, False]
  assert 'scans only: with so few' in lines[2]


def test_compare_needs_the_same_records(trained, trained_on_part, tmp_path, error_line):
  flags = [f'--compare={trained},{trained_on_part}', f'--split={EVERYTHING}']
  assert run(*flags, f'--output_dir={tmp_path}') == 2
  assert 'compare models on the same candidates' in error_line()


@pytest.mark.parametrize('name', ['model.keras', 'operating_point.json'])
def test_an_unfinished_training_is_refused(trained, tmp_path, error_line, name):
  folder = shutil.copytree(trained, tmp_path / 'run')
  (folder / name).unlink()
  assert run(f'--workdir={folder}') == 2
  assert f'training has not finished ({name} is missing)' in error_line()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--split=test'], '--workdir is required'),
    (['--workdir=/nowhere'], 'no run in it'),
    (['--workdir={run}', '--split=nowhere'], "no split 'nowhere'"),
    (['--workdir={run}', '--threshold=best'], '--threshold must be max_f1'),
    (['--workdir={run}', '--threshold=1.5'], '--threshold must be max_f1'),
    (['--workdir={run}', '--bootstrap=-1'], 'must be 0 or more'),
    (['--workdir={run}', '--seed=-1'], '--seed=-1'),
    (['--workdir={run}', '--splt=test'], 'did you mean --split'),
    (['--workdir={run}', 'stray'], 'unknown argument stray'),
    (['--workdir={run}', '--dataset=luna16_patches/cube_48mm'], 'luna16-extract'),
    (['--workdir={run}', '--dataset=nowhere'], 'luna16-extract'),
    (['--workdir={run}', '--data_dir=/nowhere'], 'luna16-extract'),
    (['--workdir={run}', '--output_dir=/dev/null/x'], 'cannot be made'),
    (['--compare={run}'], '--compare takes two workdirs'),
    (['--compare={run},{run},{run}'], '--compare takes two workdirs'),
    (['--compare={run},{run}', '--workdir={run}'], 'leave out --workdir'),
    (['--compare={run},{run}', '--ensemble={run}'], 'leave out --workdir'),
    (['--compare={run},{run}', '--bootstrap=0'], '--bootstrap must be 1 or more'),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(trained, arguments, message, error_line):
  assert run(*(a.format(run=trained) for a in arguments)) == 2
  line = error_line()
  assert line.startswith('luna16-evaluate: error: ')
  assert message in line


@pytest.mark.parametrize(
  'text', ['', '{', '[]', '{"config": {"recipe": [], "input": 3}}', '{"config": []}']
)
def test_a_damaged_config_is_refused(trained, tmp_path, error_line, text):
  folder = shutil.copytree(trained, tmp_path / 'run')
  (folder / 'config.json').write_text(text)
  assert run(f'--workdir={folder}') == 2
  assert f'{folder / "config.json"}: ' in error_line()


def test_a_damaged_history_is_found_before_records_are_scored(
  trained, tmp_path, error_line
):
  folder = shutil.copytree(trained, tmp_path / 'run')
  (folder / 'history.csv').write_text('epoch,loss\n0,x\n')
  output = tmp_path / 'output'
  assert run(f'--workdir={folder}', f'--output_dir={output}') == 2
  assert f'{folder / "history.csv"}' in error_line()
  assert not (output / 'predictions.csv').exists()


def test_a_damaged_shard_fails(trained, data_dir, tmp_path, error_line):
  folder = tmp_path / 'axial_50px_all' / '1.0.0'
  shutil.copytree(data_dir / 'luna16_patches' / 'axial_50px_all' / '1.0.0', folder)
  (path,) = folder.glob('*test.tfrecord*')
  path.write_bytes(path.read_bytes()[:9000])
  assert run(f'--workdir={trained}', f'--dataset={folder}') == 1
  assert f'{path}: cannot be read: ' in error_line()


def test_another_keras_backend_is_refused(trained, error_line, monkeypatch):
  monkeypatch.setenv('KERAS_BACKEND', 'jax')
  assert run(f'--workdir={trained}') == 2
  assert 'KERAS_BACKEND=jax is not supported; unset it' in error_line()


def test_a_model_that_gives_nan_fails(trained, tmp_path, error_line):
  folder = shutil.copytree(trained, tmp_path / 'run')
  model = keras.models.load_model(folder / 'model.keras', compile=False)
  model.get_layer('logit').bias.assign([np.nan])
  model.save(folder / 'model.keras')
  assert run(f'--workdir={folder}') == 1
  assert 'diverged' in error_line()


def test_a_split_of_excluded_findings_only(
  trained, opened_dataset, tmp_path, capsys, no_network_pictures
):
  source = opened_dataset.open_split('train')
  excluded = fake_source.read_columns(source, ('excluded',))['excluded']
  position = [bool(value) for value in excluded].index(True)
  flags = f'--split=train[{position}:{position + 1}]', f'--output_dir={tmp_path}'
  assert run(f'--workdir={trained}', *flags) == 0
  metrics = read_metrics(tmp_path)
  assert (metrics['records'], metrics['excluded_records']) == (0, 1)
  assert metrics['pr_auc'] is metrics['brier'] is metrics['ece'] is None
  assert metrics['all_candidates']['records'] == 1
  text = 'the record hits an excluded finding'
  assert any(warning.startswith(text) for warning in metrics['warnings'])
  assert f'luna16-evaluate: warning: {text}' in capsys.readouterr().err
  assert text.capitalize() in (tmp_path / 'report.html').read_text()
  assert run(f'--compare={trained},{trained}', *flags) == 0
  result = json.loads((tmp_path / 'compare.json').read_text())
  assert result['metrics']['pr_auc']['a'] is None
