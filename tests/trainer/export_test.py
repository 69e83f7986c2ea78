import contextlib
import io
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import export
from trainer.data import single_records
from trainer.scoring import inference

USE_WITHOUT_THIS_PROJECT = """
import json, sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
probabilities = model.serve(tf.cast(images, tf.float32))
ours = {'trainer', 'model', 'luna_tfds', 'keras'} & {m.split('.')[0] for m in sys.modules}
print(json.dumps([probabilities.numpy().tolist(), sorted(ours - {'keras'})]))
"""


def run(*arguments):
  return export.run(['luna16-export', *map(str, arguments)])


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.integers(-1000, 400, (5, 50, 50, 1)).astype(np.int16)


def test_exported_model_gives_the_probabilities_of_the_run(
  trained, images, tmp_path, fresh_python, capsys
):
  folder = tmp_path / 'models' / 'exported'
  assert run(f'--workdir={trained}', f'--output_dir={folder}') == 0
  assert f'{folder}: HU (50, 50, 1) in' in capsys.readouterr().out
  np.save(tmp_path / 'images.npy', images)
  found, ours = fresh_python(
    USE_WITHOUT_THIS_PROJECT, folder, tmp_path / 'images.npy', TF_CPP_MIN_LOG_LEVEL='3'
  )
  assert ours == []
  expected = inference.load_model(trained / 'model.keras').probabilities(images)
  np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-4)


@pytest.fixture
def trained_with_tta(trained, tmp_path):
  """A run with --tta, whose threshold belongs to means over the views."""
  workdir = shutil.copytree(trained, tmp_path / 'run')
  path = workdir / 'operating_point.json'
  fields = {**json.loads(path.read_text()), 'tta': True, 'threshold': 0.625}
  path.write_text(json.dumps(fields))
  return workdir


def exported_probabilities(folder, images):
  model = tf.saved_model.load(str(folder))  # it owns the weights
  return np.ravel(model.serve(tf.cast(images, tf.float32)))


def test_model_of_a_run_with_tta_computes_what_its_threshold_belongs_to(
  trained_with_tta, images, tmp_path, capsys
):
  folder = tmp_path / 'exported'
  assert run(f'--workdir={trained_with_tta}', f'--output_dir={folder}') == 0
  assert 'a nodule at 0.625 and above' in capsys.readouterr().out
  model = inference.load_model(trained_with_tta / 'model.keras')
  expected = inference.mean_probabilities([model], images, tta=True)
  assert np.all(expected != model.probabilities(images))
  np.testing.assert_allclose(
    exported_probabilities(folder, images), expected, rtol=1e-4
  )
  assert json.loads((folder / 'operating_point.json').read_text())['tta'] is True


def test_threshold_of_another_test_time_augmentation_is_not_exported(
  trained_with_tta, images, tmp_path, capsys
):
  folder = tmp_path / 'exported'
  flags = f'--workdir={trained_with_tta}', f'--output_dir={folder}', '--notta'
  assert run(*flags) == 0
  printed = capsys.readouterr().out
  assert '0.625' not in printed
  assert 'chosen with --tta and is not written' in printed
  assert not (folder / 'operating_point.json').exists()
  model = inference.load_model(trained_with_tta / 'model.keras')
  np.testing.assert_allclose(
    exported_probabilities(folder, images), model.probabilities(images), rtol=1e-4
  )


def test_operating_point_is_exported_with_the_model(trained, tmp_path):
  folder = tmp_path / 'exported'
  assert run(f'--workdir={trained}', f'--output_dir={folder}') == 0
  found = json.loads((folder / 'operating_point.json').read_text())
  assert found.pop('warnings') == []
  assert found == json.loads((trained / 'operating_point.json').read_text())


def test_without_a_run_there_is_nothing_to_export(tmp_path, error_line):
  assert run(f'--output_dir={tmp_path / "out"}') == 2
  assert '--workdir is required, or --ensemble or --crossval' in error_line()


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--workdir='], '--workdir: the name of a folder is empty'),
    (['--output_dir='], '--output_dir is required'),
    (['--workdir=/nowhere'], 'no run in it'),
    (['--output_dir={tmp}'], 'exists already'),
    (['--output={tmp}'], 'exists already'),  # its name in release 1.0.0
    (['--crossval=/nowhere'], 'leave out --workdir and --ensemble'),
    (['--ensemble=,'], '--ensemble: the name of a folder is empty'),
    (['--output_dir=/dev/null/x/y'], '--output_dir: the folder /dev/null/x'),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
  flags, message, trained, tmp_path, error_line
):
  flags = [flag.format(tmp=tmp_path) for flag in flags]
  assert run(f'--workdir={trained}', f'--output_dir={tmp_path / "out"}', *flags) == 2
  assert message in error_line()
  assert not (tmp_path / 'out').exists()


@pytest.fixture(scope='module')
def member(trained, tmp_path_factory):
  """A run with other weights, on the same splits.

  Not of the other network: in bfloat16 its layers are fused in a SavedModel, which changes
  the probabilities by up to 1e-3.
  """
  folder = shutil.copytree(trained, tmp_path_factory.mktemp('member') / 'run')
  model = keras.models.load_model(folder / 'model.keras', compile=False)
  for layer in model.layers:
    if layer.name == 'logit':
      kernel, bias = layer.get_weights()
      layer.set_weights([-2 * kernel, bias + 0.7])
  model.save(folder / 'model.keras')
  return folder


@pytest.fixture(scope='module')
def ensemble_export(trained, member, tmp_path_factory):
  """The folder of an exported ensemble with test-time augmentation, and what is printed."""
  folder = tmp_path_factory.mktemp('exports') / 'ensemble'
  flags = f'--ensemble={trained},{member}', '--tta', f'--output_dir={folder}'
  with contextlib.redirect_stdout(io.StringIO()) as printed:
    assert run(*flags) == 0
  return folder, printed.getvalue()


def test_ensemble_computes_the_mean_over_runs_and_views(
  ensemble_export, trained, member, images
):
  folder, printed = ensemble_export
  assert 'mean of 2 runs, mean of flips and rotations' in printed
  models = [inference.load_model(path / 'model.keras') for path in (trained, member)]
  expected = inference.mean_probabilities(models, images, tta=True)
  for other in (
    inference.mean_probabilities(models, images, tta=False),
    inference.mean_probabilities(models[:1], images, tta=True),
  ):
    assert np.abs(other - expected).min() > 1e-5
  np.testing.assert_allclose(
    exported_probabilities(folder, images), expected, rtol=1e-5
  )
  loaded = keras.models.load_model(folder / 'model.keras', compile=False)
  np.testing.assert_allclose(np.ravel(loaded(images)), expected, rtol=1e-5)
  # Of a single image too, and of none.
  np.testing.assert_allclose(
    exported_probabilities(folder, images[:1]), expected[:1], rtol=1e-5
  )
  assert [path.name for path in folder.parent.iterdir()] == ['ensemble']


def test_ensemble_has_the_probabilities_and_the_threshold_of_luna16_evaluate(
  ensemble_export, trained, member, opened_dataset, evaluate_folders
):
  folder, printed = ensemble_export
  evaluation = evaluate_folders(trained, member, tta=True)
  threshold = evaluation.decision.point.threshold
  point = json.loads((folder / 'operating_point.json').read_text())
  assert point['threshold'] == threshold
  assert (point['tta'], point['chosen_on']) == (True, 'validation')
  assert f'a nodule at {threshold:.4g} and above' in printed
  source = opened_dataset.open_split('test')
  images = single_records.read_images(source, range(source.num_records))
  np.testing.assert_allclose(
    exported_probabilities(folder, images),
    evaluation.scored.records.probability,
    rtol=1e-5,
  )


def test_threshold_of_an_ensemble_needs_its_dataset(trained, member, tmp_path, capsys):
  moved = shutil.copytree(trained, tmp_path / 'moved')
  fields = json.loads((moved / 'config.json').read_text())
  fields['config']['data_dir'] = '/nowhere'
  (moved / 'config.json').write_text(json.dumps(fields))
  folder = tmp_path / 'out'
  flags = f'--workdir={moved}', f'--workdir={member}'
  assert run(*flags, f'--output_dir={folder}') == 0
  printed = capsys.readouterr().out
  assert 'no threshold is written' in printed
  assert f'luna16-evaluate --ensemble={moved},{member}' in printed
  assert not (folder / 'operating_point.json').exists()


@pytest.fixture
def crossval(trained, member, tmp_path):
  """The folder of a cross-validation of two folds, with splits of their own."""
  folder = tmp_path / 'crossval'
  for number, source in ((0, trained), (3, member)):
    fold = shutil.copytree(source, folder / f'fold{number}')
    fields = json.loads((fold / 'config.json').read_text())
    fields['config']['train_split'] = f'train[{number}shard:]'
    (fold / 'config.json').write_text(json.dumps(fields))
  rows = {'folds': [{'fold': 0}, {'fold': 3}]}
  (folder / 'crossval.json').write_text(json.dumps(rows))
  return folder


def test_folds_are_exported_without_a_threshold(
  crossval, trained, member, images, tmp_path, capsys
):
  folder = tmp_path / 'out'
  assert run(f'--crossval={crossval}', f'--output_dir={folder}') == 0
  printed = capsys.readouterr().out
  assert 'mean of 2 runs; no threshold is written: each scan was in' in printed
  assert not (folder / 'operating_point.json').exists()
  models = [inference.load_model(path / 'model.keras') for path in (trained, member)]
  np.testing.assert_allclose(
    exported_probabilities(folder, images),
    inference.mean_probabilities(models, images),
    rtol=1e-5,
  )


def test_an_unfinished_cross_validation_is_refused(crossval, tmp_path, error_line):
  (crossval / 'crossval.json').unlink()
  assert run(f'--crossval={crossval}', f'--output_dir={tmp_path / "out"}') == 2
  assert 'no finished cross-validation' in error_line()


@pytest.mark.parametrize(
  ('file', 'changes', 'message'),
  [
    (
      'config.json',
      {'patch': {'shape_zyx': [1, 50, 50], 'spacing_mm': 0.5, 'layout': 'axial'}},
      'same kind of patches',
    ),
    ('operating_point.json', {'deployed_prior': 0.4}, 'prevalence of nodules of 0.4'),
    (
      'calibration.json',
      {
        'method': 'platt',
        'methods': [{'method': 'platt', 'scale': 1.0, 'offset': 0.0, 'ece': 0.1}],
      },
      'is calibrated by platt',
    ),
  ],
)
def test_members_that_do_not_match_are_refused(
  trained, member, tmp_path, file, changes, message, error_line
):
  other = shutil.copytree(member, tmp_path / 'other')
  fields = json.loads((other / file).read_text())
  (other / file).write_text(json.dumps({**fields, **changes}))
  if file == 'operating_point.json':
    config = json.loads((other / 'config.json').read_text())
    config['config']['deployed_prior'] = 0.4
    (other / 'config.json').write_text(json.dumps(config))
  flags = f'--ensemble={trained},{other}', f'--output_dir={tmp_path / "out"}'
  assert run(*flags) == 2
  assert message in error_line()
  assert not (tmp_path / 'out').exists()


def test_an_unfinished_training_is_refused(trained, tmp_path, error_line):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  (workdir / 'model.keras').unlink()
  assert run(f'--workdir={workdir}', f'--output_dir={tmp_path / "out"}') == 2
  assert 'training has not finished' in error_line()


def test_a_damaged_model_is_refused(trained, tmp_path, error_line):
  workdir = shutil.copytree(trained, tmp_path / 'run')
  (workdir / 'model.keras').write_bytes(b'damaged')
  assert run(f'--workdir={workdir}', f'--output_dir={tmp_path / "out"}') == 2
  assert 'cannot be loaded as a model' in error_line()


def with_config(source, folder, **changes):
  """A copy of a run with other settings."""
  shutil.copytree(source, folder)
  fields = json.loads((folder / 'config.json').read_text())
  fields['config'] |= changes
  (folder / 'config.json').write_text(json.dumps(fields))
  return folder


def test_threshold_of_scans_that_members_were_trained_on_is_reported(
  trained, member, opened_dataset, tmp_path, capsys
):
  # Such runs cannot be trained now; members of other datasets have the same effect.
  paths = [
    with_config(source, tmp_path / name, train_split='train+validation')
    for name, source in (('a', trained), ('b', member))
  ]
  folder = tmp_path / 'out'
  flags = f'--workdir={paths[0]}', f'--workdir={paths[1]}', f'--output_dir={folder}'
  assert run(*flags) == 0
  (line,) = capsys.readouterr().err.splitlines()[-1:]
  n = opened_dataset.open_split('validation').num_records
  text = f'the threshold was chosen on {n} records, of which {n} are of scans that were'
  assert line.startswith(f'luna16-export: warning: {text}')
  point = json.loads((folder / 'operating_point.json').read_text())
  assert point['warnings'] == [line.partition('warning: ')[2]]


def test_members_whose_scans_are_not_known_are_reported(
  trained, member, tmp_path, capsys
):
  moved = with_config(member, tmp_path / 'moved', data_dir='/nowhere')
  fields = json.loads((moved / 'config.json').read_text())
  fields['dataset_fingerprint'] = 'another'
  (moved / 'config.json').write_text(json.dumps(fields))
  folder = tmp_path / 'out'
  assert run(f'--ensemble={trained},{moved}', f'--output_dir={folder}') == 0
  assert 'scans that were trained on is not known' in capsys.readouterr().err
  point = json.loads((folder / 'operating_point.json').read_text())
  assert len(point['warnings']) == 1


def test_calibrated_folds_are_reported(crossval, tmp_path, capsys):
  for fold in ('fold0', 'fold3'):
    path = crossval / fold / 'calibration.json'
    fit = {'method': 'platt', 'scale': 1.0, 'offset': 0.0, 'ece': 0.1}
    fields = {'method': 'platt', 'fitted_on': 'validation', 'methods': [fit]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    point = crossval / fold / 'operating_point.json'
    fields = {**json.loads(point.read_text()), 'rule': '0.4', 'threshold': 0.4}
    point.write_text(json.dumps(fields))
  folder = tmp_path / 'out'
  assert run(f'--crossval={crossval}', f'--output_dir={folder}') == 0
  captured = capsys.readouterr()
  assert 'a nodule at 0.4 and above' in captured.out
  text = (
    'the calibration of each fold was fitted on scans that other folds were trained'
  )
  assert f'luna16-export: warning: {text}' in captured.err
  found = json.loads((folder / 'operating_point.json').read_text())
  assert [warning.startswith(text) for warning in found['warnings']] == [True]
