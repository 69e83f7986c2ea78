import json
import shutil

import evaluate_command
import keras
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures('no_network_pictures')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--split=test'], '--workdir is required'),
    (
      ['--workdir={run}', '--ensemble={run},'],
      '--ensemble: the name of a folder is empty',
    ),
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
  assert evaluate_command.run(*(a.format(run=trained) for a in arguments)) == 2
  line = error_line()
  assert line.startswith('luna16-evaluate: error: ')
  assert message in line


@pytest.mark.parametrize('flag', ['annotations_excluded', 'seriesuids'])
def test_parts_of_a_reference_need_annotations(trained, flag, error_line):
  assert evaluate_command.run(f'--workdir={trained}', f'--{flag}=x.csv') == 2
  assert f'--{flag} needs --annotations or --luna_dir' in error_line()


def test_ensemble_on_other_splits_is_refused(
  trained, other_trained, tmp_path, error_line
):
  moved = shutil.copytree(other_trained, tmp_path / 'moved')
  fields = json.loads((moved / 'config.json').read_text())
  fields['config']['validation_split'] = 'test'
  (moved / 'config.json').write_text(json.dumps(fields))
  assert (
    evaluate_command.run(
      f'--ensemble={trained},{moved}', f'--output_dir={tmp_path / "out"}'
    )
    == 2
  )
  assert 'same splits' in error_line()


def test_compare_needs_the_same_records(trained, trained_on_part, tmp_path, error_line):
  flags = [
    f'--compare={trained},{trained_on_part}',
    f'--split={evaluate_command.EVERYTHING}',
  ]
  assert evaluate_command.run(*flags, f'--output_dir={tmp_path}') == 2
  assert 'compare models on the same candidates' in error_line()


@pytest.mark.parametrize('name', ['model.keras', 'operating_point.json'])
def test_an_unfinished_training_is_refused(trained, tmp_path, error_line, name):
  folder = shutil.copytree(trained, tmp_path / 'run')
  (folder / name).unlink()
  assert evaluate_command.run(f'--workdir={folder}') == 2
  assert f'training has not finished ({name} is missing)' in error_line()


@pytest.mark.parametrize(
  'text', ['', '{', '[]', '{"config": {"recipe": [], "input": 3}}', '{"config": []}']
)
def test_a_damaged_config_is_refused(trained, tmp_path, error_line, text):
  folder = shutil.copytree(trained, tmp_path / 'run')
  (folder / 'config.json').write_text(text)
  assert evaluate_command.run(f'--workdir={folder}') == 2
  assert f'{folder / "config.json"}: ' in error_line()


def test_a_damaged_history_is_found_before_records_are_scored(
  trained, tmp_path, error_line
):
  folder = shutil.copytree(trained, tmp_path / 'run')
  (folder / 'history.csv').write_text('epoch,loss\n0,x\n')
  output = tmp_path / 'output'
  assert evaluate_command.run(f'--workdir={folder}', f'--output_dir={output}') == 2
  assert f'{folder / "history.csv"}' in error_line()
  assert not (output / 'predictions.csv').exists()


def test_a_damaged_shard_fails(trained, data_dir, tmp_path, error_line):
  folder = tmp_path / 'axial_50px_all' / '1.0.0'
  shutil.copytree(data_dir / 'luna16_patches' / 'axial_50px_all' / '1.0.0', folder)
  (path,) = folder.glob('*test.tfrecord*')
  path.write_bytes(path.read_bytes()[:9000])
  assert evaluate_command.run(f'--workdir={trained}', f'--dataset={folder}') == 1
  assert f'{path}: cannot be read: ' in error_line()


def test_another_keras_backend_is_refused(trained, error_line, monkeypatch):
  monkeypatch.setenv('KERAS_BACKEND', 'jax')
  assert evaluate_command.run(f'--workdir={trained}') == 2
  assert 'KERAS_BACKEND=jax is not supported; unset it' in error_line()


def test_a_model_that_gives_nan_fails(trained, tmp_path, error_line):
  folder = shutil.copytree(trained, tmp_path / 'run')
  model = keras.models.load_model(folder / 'model.keras', compile=False)
  model.get_layer('logit').bias.assign([np.nan])
  model.save(folder / 'model.keras')
  assert evaluate_command.run(f'--workdir={folder}') == 1
  assert 'diverged' in error_line()
