import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from trainer import export
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
  assert found == json.loads((trained / 'operating_point.json').read_text())


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--workdir='], '--workdir is required'),
    (['--output_dir='], '--output_dir is required'),
    (['--workdir=/nowhere'], 'no run in it'),
    (['--output_dir={tmp}'], 'exists already'),
    (['--output={tmp}'], 'exists already'),  # its name in version 1.0.0
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
