import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from sklearn import metrics as sk
import tensorflow_datasets as tfds

import luna_tfds  # noqa: F401, registers the dataset
from trainer import evaluate
from trainer import train
from trainer import visualize
from trainer import workdir as workdir_lib
from trainer.data import split_source
from trainer.evaluation import comparison
from trainer.evaluation import evaluation
from trainer.evaluation import subgroups
from trainer.scoring import inference
from trainer.scoring import operating_point

DATASET = 'luna16_patches/axial_50px_all'
EVERYTHING = 'train+validation+test'
QUICK = '--bootstrap=50'


def run_training(data_dir, folder, *more):
  arguments = [
    f'--data_dir={data_dir}',
    f'--dataset={DATASET}',
    f'--workdir={folder}',
    '--model=nodule_net',
    '--epochs=1',
    '--steps_per_epoch=2',
    '--batch_size=8',
  ]
  assert train.run(['luna16-train', *arguments, *more]) == 0
  return folder


@pytest.fixture(scope='module')
def trained(data_dir, tmp_path_factory):
  return run_training(data_dir, tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def other(data_dir, tmp_path_factory):
  """Another run: another network on the same splits."""
  folder = tmp_path_factory.mktemp('other')
  return run_training(data_dir, folder, '--model=article_cnn', '--seed=1')


def run(*arguments):
  return evaluate.run(['luna16-evaluate', QUICK, *map(str, arguments)])


@pytest.fixture(scope='module')
def evaluated(trained, tmp_path_factory):
  """Folder of an evaluation of all scans."""
  folder = tmp_path_factory.mktemp('evaluated')
  code = run(f'--workdir={trained}', f'--split={EVERYTHING}', f'--output_dir={folder}')
  assert code == 0
  return folder


@pytest.fixture(autouse=True)
def quick_report(monkeypatch, evaluated):
  """The pictures of the network take longest; only the first report has them."""
  monkeypatch.setattr(visualize, 'figures', lambda model, image: {})


def read_metrics(folder):
  def refuse(constant):
    raise AssertionError(f'{constant} is no JSON')

  return json.loads((folder / 'metrics.json').read_text(), parse_constant=refuse)


def read_predictions(folder):
  with (folder / 'predictions.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def column(rows, name, kind=float):
  return np.array([kind(row[name]) for row in rows])


@pytest.fixture(scope='module')
def predictions(evaluated):
  return read_predictions(evaluated)


@pytest.fixture
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


def test_figures_follow_from_the_predictions(predictions, metrics):
  labels, p = column(predictions, 'label', int), column(predictions, 'probability')
  assert metrics['records'] == len(predictions)
  assert metrics['nodules'] == labels.sum()
  assert metrics['scans'] == 12
  assert metrics['pr_auc'] == pytest.approx(sk.average_precision_score(labels, p))
  assert metrics['roc_auc'] == pytest.approx(sk.roc_auc_score(labels, p))
  assert metrics['brier'] == pytest.approx(sk.brier_score_loss(labels, p))
  point = metrics['operating_points'][-1]
  at_point = p >= point['threshold']
  assert point['target'] == 'recall >= 0.99'
  assert point['recall'] == pytest.approx(sk.recall_score(labels, at_point))
  assert point['precision'] == pytest.approx(sk.precision_score(labels, at_point))


def test_every_figure_has_an_interval(metrics):
  for name, (lower, upper) in metrics['intervals'].items():
    assert lower <= upper, name
    assert metrics[name] is not None
  assert {'pr_auc', 'ece', 'f1'} < set(metrics['intervals'])
  assert metrics['intervals_resample'] == 'scans'
  for point in metrics['operating_points']:
    assert set(point['intervals']) < set(point)
  for table in ('by_diameter', 'by_subset', 'by_slice_thickness'):
    assert all(set(row['intervals']) < set(row) for row in metrics[table])


def test_on_validation_no_record_is_judged_by_a_threshold_it_chose(
  trained, tmp_path, capsys
):
  code = run(
    f'--workdir={trained}', '--split=validation', f'--output_dir={tmp_path / "v"}'
  )
  assert code == 0
  assert 'two-fold' in read_metrics(tmp_path / 'v')['threshold_chosen_on']
  assert 'validation: ' in capsys.readouterr().out


def test_a_split_that_overlaps_validation_is_cross_fitted(trained, evaluated, data_dir):
  assert 'two-fold' in read_metrics(evaluated)['threshold_chosen_on']
  for split, where in (
    ('test', 'validation'),
    ('validation[0shard:1shard]', 'the other half of'),
  ):
    result = evaluation.evaluate([str(trained)], split=split, bootstrap=0)
    assert result.metrics['threshold_chosen_on'].startswith(where)


def test_records_that_were_trained_on_are_counted(trained, metrics, data_dir):
  builder = split_source.open_builder(str(data_dir), DATASET)
  in_train = builder.info.splits['train'].num_examples
  assert metrics['records_trained_on'] == in_train
  result = evaluation.evaluate([str(trained)], split='test+train[:7]', bootstrap=0)
  assert result.metrics['records_trained_on'] == 7
  result = evaluation.evaluate([str(trained)], split='test', bootstrap=0)
  assert result.metrics['records_trained_on'] == 0


def test_tables_by_subset(predictions, metrics):
  labels, p = column(predictions, 'label', int), column(predictions, 'probability')
  subsets = column(predictions, 'subset', int)
  rows = metrics['by_subset']
  assert [row['subset'] for row in rows] == list(range(10))
  for row in rows:
    mask = subsets == row['subset']
    assert row['records'] == mask.sum()
    assert row['nodules'] == labels[mask].sum()
    assert row['scans'] == (2 if row['subset'] in (0, 2) else 1)
    expected = sk.average_precision_score(labels[mask], p[mask])
    assert row['pr_auc'] == pytest.approx(expected)


def test_table_by_slice_thickness(download, predictions, metrics):
  thickness = np.array(
    [download.scans[row['seriesuid']].spacing_xyz_mm[2] for row in predictions]
  )
  rows = {row['bin']: row for row in metrics['by_slice_thickness']}
  assert set(rows) == {'below 1 mm', '1.5 to 2 mm', '2 mm and over'}
  assert rows['below 1 mm']['records'] == np.sum(thickness == 0.625)
  assert rows['1.5 to 2 mm']['records'] == np.sum(thickness == 1.5)
  assert rows['2 mm and over']['records'] == np.sum(thickness == 2.5)


def test_table_by_diameter_counts_nodules_once(download, predictions, metrics):
  (row,) = metrics['by_diameter']  # all nodules are 8.5 mm across
  positives = [r for r in predictions if r['label'] == '1']
  assert row['bin'] == '5 to 10 mm'
  assert row['records'] == len(positives)
  assert row['nodules'] == len(download.nodules)
  p = column(positives, 'probability')
  assert row['mean_probability'] == pytest.approx(p.mean())


def make_scores(rows):
  """Scores of (scan, label, probability, nodule_id, diameter, thickness, subset)."""
  scans, labels, p, nodules, diameters, thickness, subsets = zip(*rows)
  return inference.Scores(
    {
      'seriesuid': np.array(scans),
      'candidate_id': np.arange(len(rows)),
      'label': np.array(labels),
      'nodule_id': np.array(nodules),
      'diameter_mm': np.array(diameters, np.float32),
      'spacing_xyz_mm': np.array([(0.7, 0.7, t) for t in thickness], np.float32),
      'subset': np.array(subsets),
    },
    np.array(p),
  )


def test_breakdown_by_hand():
  scores = make_scores(
    [
      # Two marks on one small nodule, of which one is called.
      ('a', 1, 0.9, 0, 4.9, 0.7, 3),
      ('a', 1, 0.2, 0, 4.9, 0.7, 3),
      ('a', 1, 0.1, 1, 3.0, 0.7, 3),
      ('a', 0, 0.8, -1, 0.0, 0.7, 3),
      ('b', 1, 0.7, 2, 5.0, 1.25, 4),
      ('b', 1, 0.6, 3, 12.0, 1.25, 4),
      # A nodule of annotations that this file does not know.
      ('b', 1, 0.6, -1, 0.0, 1.25, 4),
    ]
  )
  called = scores.probabilities >= 0.5
  none = subgroups.Resampling(0)
  small, middle, large = subgroups.by_diameter(scores, called, none)
  assert (small['bin'], small['records'], small['nodules']) == ('3 to 5 mm', 3, 2)
  assert small['recall'] == pytest.approx(1 / 3)
  assert small['nodule_recall'] == 0.5
  assert small['mean_probability'] == pytest.approx(0.4)
  assert (middle['bin'], middle['records']) == ('5 to 10 mm', 1)
  assert (large['bin'], large['records']) == ('10 mm and over', 1)
  thin, thick = subgroups.by_slice_thickness(scores, called, none)
  assert (thin['bin'], thin['records'], thin['scans']) == ('below 1 mm', 4, 1)
  assert thin['recall'] == pytest.approx(1 / 3)
  assert thin['specificity'] == 0
  assert (thick['bin'], thick['nodules']) == ('1 to 1.5 mm', 3)
  assert thick['specificity'] is None
  assert [r['subset'] for r in subgroups.by_subset(scores, called, none)] == [3, 4]


def test_breakdown_leaves_out_what_is_unknown():
  scores = make_scores(
    [('', 1, 0.9, -1, 0.0, np.nan, -1), ('', 0, 0.1, -1, 0, np.nan, -1)]
  )
  called, none = scores.probabilities > 0.5, subgroups.Resampling(10)
  assert subgroups.by_diameter(scores, called, none) == []
  assert subgroups.by_slice_thickness(scores, called, none) == []
  assert subgroups.by_subset(scores, called, none) == []
  assert evaluation.breakdowns(scores, called, none, {}) == {}


def test_resampled_images_tell_no_slice_thickness():
  scores = make_scores([('a', 1, 0.9, 0, 6.0, 1.0, 1), ('a', 0, 0.1, -1, 0, 1.0, 1)])
  called, none = scores.probabilities > 0.5, subgroups.Resampling(0)
  tables = evaluation.breakdowns(scores, called, none, {'patch': {'spacing_mm': 1.0}})
  assert set(tables) == {'by_diameter', 'by_subset'}


def random_scores(seed, n=400):
  rng = np.random.default_rng(seed)
  rows = [
    (f's{rng.integers(40)}', int(rng.random() < 0.4), rng.random(), -1, 0, 1, 1)
    for _ in range(n)
  ]
  return make_scores(rows)


def test_cross_fit_never_uses_the_half_it_judges():
  scores = random_scores(0)
  half = operating_point.halves(scores)
  assert 0.2 < half.mean() < 0.8
  for scan in np.unique(scores.groups):
    assert len(np.unique(half[scores.groups == scan])) == 1
  _, before = operating_point.cross_fit(scores, 'recall:0.7')
  for judged, k in ((half, 0), (~half, 1)):
    changed = random_scores(0)
    changed.features['label'][judged] = 1 - changed.labels[judged]
    changed.probabilities[judged] **= 3
    called, thresholds = operating_point.cross_fit(changed, 'recall:0.7')
    assert thresholds[k] == before[k]
    assert thresholds[1 - k] != before[1 - k]
    np.testing.assert_array_equal(
      called[judged], changed.probabilities[judged] >= before[k]
    )


def test_cross_fit_with_one_class_in_a_half_takes_one_half():
  scores = make_scores([('a', 1, 0.9, -1, 0, 1, 1), ('a', 0, 0.4, -1, 0, 1, 1)])
  # The scan judges the other, empty half only.
  called, thresholds = operating_point.cross_fit(scores, 'max_f1')
  assert sorted(thresholds) == [0.5, pytest.approx(0.65)]
  np.testing.assert_array_equal(called, [True, False])


def test_shared_records_of_pieces():
  def source(*pieces):
    pieces = tuple(split_source.Piece(*piece) for piece in pieces)
    return split_source.Source('', pieces, (50, 50, 1), (1, 1), 0, '')

  a = source(('one', 0, 10), ('two', 5, 5))
  assert operating_point.shared_records(a, source(('one', 8, 10))) == 2
  assert operating_point.shared_records(a, source(('two', 0, 5), ('three', 0, 9))) == 0
  assert operating_point.shared_records(a, a) == 15


def test_given_threshold(trained, tmp_path):
  code = run(f'--workdir={trained}', '--threshold=0.3', f'--output_dir={tmp_path}')
  assert code == 0
  found = read_metrics(tmp_path)
  rows = read_predictions(tmp_path)
  called = column(rows, 'probability') >= 0.3
  labels = column(rows, 'label', int)
  assert found['threshold'] == 0.3
  assert found['threshold_chosen_on'] == 'given'
  assert found['confusion_matrix']['true_positives'] == np.sum(called & (labels == 1))
  assert found['confusion_matrix']['false_positives'] == np.sum(called & (labels == 0))


def test_other_rule_is_chosen_on_validation(trained):
  result = evaluation.evaluate([str(trained)], rule='recall:0.8', bootstrap=0)
  validation = evaluation.evaluate(
    [str(trained)], split='validation', rule='0.5', bootstrap=0
  )
  caught = validation.scores.labels == 1
  p = validation.scores.probabilities[caught]
  assert np.mean(p >= result.metrics['threshold']) >= 0.8
  assert result.metrics['threshold_chosen_on'] == 'validation'


def test_split_of_one_class(trained, tmp_path):
  code = run(f'--workdir={trained}', '--split=test[:1]', f'--output_dir={tmp_path}')
  assert code == 0
  found = read_metrics(tmp_path)
  assert found['records'] == 1
  assert found['pr_auc'] is None
  assert found['operating_points'] == []
  assert found['intervals']['roc_auc'] == [None, None]
  assert 'one class only' in (tmp_path / 'report.html').read_text()


def test_json_has_no_nan():
  fields = {'a': [float('nan'), 1.0], 'b': {'c': (float('inf'), 'text', None, 3)}}
  assert evaluation.without_nan(fields) == {
    'a': [None, 1.0],
    'b': {'c': [None, 'text', None, 3]},
  }


@pytest.mark.slow
def test_ensemble_is_the_mean_with_a_threshold_of_its_own(trained, other, tmp_path):
  outputs = {
    name: evaluation.evaluate([str(path)], split='test', bootstrap=0)
    for name, path in (('a', trained), ('b', other))
  }
  outputs = {name: result.scores.probabilities for name, result in outputs.items()}
  for name, arguments in {
    'list': [f'--ensemble={trained},{other}'],
    'flags': [f'--workdir={trained}', f'--workdir={other}'],
  }.items():
    assert run(*arguments, '--split=test', f'--output_dir={tmp_path / name}') == 0
    outputs[name] = column(read_predictions(tmp_path / name), 'probability')
  mean = (outputs['a'] + outputs['b']) / 2
  np.testing.assert_allclose(outputs['list'], mean, rtol=1e-6)
  np.testing.assert_array_equal(outputs['flags'], outputs['list'])
  found = read_metrics(tmp_path / 'list')
  assert found['models'] == 2
  assert found['threshold_chosen_on'] == 'validation'
  both = evaluation.evaluate(
    [str(trained), str(other)], split='validation', rule='0.5', bootstrap=0
  )
  precision, recall, _ = sk.precision_recall_curve(
    both.scores.labels, both.scores.probabilities
  )
  f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
  called = both.scores.probabilities >= found['threshold']
  assert sk.f1_score(both.scores.labels, called) == pytest.approx(f1.max())


def test_ensemble_writes_to_a_folder_of_its_own(trained, other):
  assert run(f'--ensemble={trained},{other}', '--split=test', '--bootstrap=0') == 0
  assert (trained / 'ensemble' / 'metrics.json').is_file()
  assert not (trained / 'metrics.json').exists()


def test_ensemble_on_other_splits_is_refused(
  trained, other, data_dir, tmp_path, error_line
):
  moved = shutil.copytree(other, tmp_path / 'moved')
  fields = workdir_lib.read_json(moved / 'config.json')
  fields['config']['validation_split'] = 'test'
  workdir_lib.write_json(moved / 'config.json', fields)
  assert run(f'--ensemble={trained},{moved}') == 2
  assert 'same splits' in error_line()


def test_compare(trained, other, tmp_path, capsys):
  folder = tmp_path / 'out'
  code = run('--compare', trained, other, '--split=test', f'--output_dir={folder}')
  assert code == 0
  found = json.loads((folder / 'compare.json').read_text())
  a = evaluation.evaluate([str(trained)], split='test', bootstrap=0).metrics
  b = evaluation.evaluate([str(other)], split='test', bootstrap=0).metrics
  for name in ('pr_auc', 'roc_auc', 'f1'):
    row = found['figures'][name]
    assert (row['a'], row['b']) == (a[name], b[name])
    assert row['difference'] == pytest.approx(a[name] - b[name])
    # There is one scan in the split, so every resample is the split.
    assert row['lower'] == pytest.approx(row['difference'])
  printed = capsys.readouterr().out
  assert f'{a["pr_auc"]:.4f}' in printed
  assert str(other) in printed


def test_compare_with_itself_in_one_argument(trained, tmp_path):
  code = run(
    f'--compare={trained},{trained}',
    f'--split={EVERYTHING}',
    f'--output_dir={tmp_path}',
  )
  assert code == 0
  figures = json.loads((tmp_path / 'compare.json').read_text())['figures']
  for row in figures.values():
    assert row['difference'] == row['lower'] == row['upper'] == 0


@pytest.fixture(scope='module')
def sampled(data_dir, tmp_path_factory):
  """A run on a dataset that holds a part of the candidates."""
  folder = tmp_path_factory.mktemp('sampled')
  return run_training(data_dir, folder, '--dataset=luna16_patches/axial_50px')


def test_compare_needs_the_same_records(trained, sampled, capfd):
  capfd.readouterr()
  assert run(f'--compare={trained},{sampled}', f'--split={EVERYTHING}') == 2
  (line,) = capfd.readouterr().err.splitlines()
  assert 'compare models on the same candidates' in line


def test_models_of_two_datasets_compare_on_one(trained, sampled):
  a, b = (
    evaluation.evaluate([str(path)], split='test', dataset=DATASET, bootstrap=0)
    for path in (trained, sampled)
  )
  found = comparison.compare(a, b, subgroups.Resampling(5))
  assert found['records'] == len(a.scores)


def test_records_in_another_order_are_compared_by_their_keys(trained):
  a = evaluation.evaluate([str(trained)], split='test', bootstrap=0)
  order = np.random.default_rng(0).permutation(len(a.scores))
  features = {name: values[order] for name, values in a.scores.features.items()}
  b = dataclasses.replace(
    a,
    scores=inference.Scores(features, a.scores.probabilities[order]),
    source=dataclasses.replace(a.source, fingerprint='another'),
    decision=dataclasses.replace(a.decision, called=a.decision.called[order]),
  )
  found = comparison.compare(a, b, subgroups.Resampling(5))
  assert found['figures']['pr_auc']['difference'] == 0


def test_a_run_without_a_finished_training_is_refused(trained, tmp_path, error_line):
  for name in ('model.keras', 'operating_point.json'):
    folder = shutil.copytree(trained, tmp_path / name)
    (folder / name).unlink()
    assert run(f'--workdir={folder}') == 2
    assert f'training has not finished ({name} is missing)' in error_line()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--split=test'], '--workdir is required'),
    (['--workdir=/nowhere'], 'no run in it'),
    (['--workdir={run}', '--split=nowhere'], "no split 'nowhere'"),
    (['--workdir={run}', '--threshold=best'], 'max_f1'),
    (['--workdir={run}', '--bootstrap=-1'], '--bootstrap must be 0 or more'),
    (['--workdir={run}', '--seed=-1'], '--seed must be 0 or more'),
    (['--workdir={run}', '--splt=test'], 'did you mean --split'),
    (['--workdir={run}', 'stray'], 'unknown argument stray'),
    (['--workdir={run}', '--dataset=luna16_patches/cube_48mm'], 'luna16-extract'),
    (['--workdir={run}', '--output_dir=/dev/null/x'], 'cannot be written'),
    (['--compare={run}'], '--compare takes two workdirs'),
    (['--compare={run},{run},{run}'], '--compare takes two workdirs'),
    (['--compare={run},{run}', '--workdir={run}'], 'leave out --workdir'),
    (['--compare={run},{run}', '--bootstrap=0'], '--bootstrap must be 1 or more'),
  ],
)
def test_bad_input_is_one_line_and_exit_code_2(trained, arguments, message, capfd):
  assert run(*(a.format(run=trained) for a in arguments)) == 2
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith('luna16-evaluate: error: ')
  assert message in line


def test_dataset_of_another_shape_is_refused(
  trained, download, extract, tmp_path, capfd
):
  code = extract(
    download.folder, tmp_path, '--config=axial_50px', '--patch_shape=20,20'
  )
  assert code == 0
  (folder,) = (path.parent for path in tmp_path.rglob('dataset_info.json'))
  capfd.readouterr()
  assert run(f'--workdir={trained}', f'--dataset={folder}') == 2
  line = capfd.readouterr().err.splitlines()[-1]
  assert '(50, 50, 1)' in line
  assert '(20, 20, 1)' in line


def test_a_model_that_gives_no_number_is_told(trained, tmp_path, capfd):
  folder = shutil.copytree(trained, tmp_path / 'run')
  model = keras.models.load_model(folder / 'model.keras', compile=False)
  model.get_layer('logit').bias.assign([np.nan])
  model.save(folder / 'model.keras')
  assert run(f'--workdir={folder}') == 1
  assert 'diverged' in capfd.readouterr().err.splitlines()[-1]
