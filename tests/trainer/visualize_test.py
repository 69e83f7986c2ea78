import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest

from luna_tfds.files import atomic_files
from trainer import visualize
from trainer.pictures import network_pictures
from trainer.scoring import inference
from trainer.scoring import scored_records


def run(*arguments):
  return visualize.run(['luna16-visualize', *map(str, arguments)])


@pytest.fixture(scope='module')
def by_position(other_trained, tmp_path_factory):
  folder = tmp_path_factory.mktemp('pictures')
  flags = ['--split=test', '--record=4', f'--output_dir={folder}']
  assert run(f'--workdir={other_trained}', *flags) == 0
  return folder


def test_a_picture_of_each_layer_is_written(by_position, other_trained):
  model = inference.load_model(other_trained / 'model.keras').keras_model
  layers = [layer.name for layer in network_pictures.convolutions(model)]
  names = {path.name for path in by_position.iterdir()}
  expected = {'filters', 'grad_cam', *(f'features_{name}' for name in layers)}
  assert names == {f'{name}.png' for name in expected}
  for path in by_position.iterdir():
    assert np.ptp(np.asarray(Image.open(path).convert('L'))) > 50, path


def test_a_key_names_the_same_record_as_its_position(
  by_position, other_trained, opened_dataset, tmp_path, capsys
):
  model = inference.load_model(other_trained / 'model.keras')
  source = opened_dataset.open_split('test')
  key = scored_records.score_split([model], source).keys[4]
  flags = ['--split=test', f'--record={key}', f'--output_dir={tmp_path}']
  assert run(f'--workdir={other_trained}', *flags) == 0
  printed = capsys.readouterr().out.splitlines()
  assert sorted(printed) == sorted(str(path) for path in tmp_path.iterdir())
  for path in by_position.iterdir():
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_another_record_has_other_pictures(by_position, other_trained, tmp_path):
  flags = ['--split=test', '--record=5', f'--output_dir={tmp_path}']
  assert run(f'--workdir={other_trained}', *flags) == 0
  for name in ('filters.png', 'grad_cam.png'):
    same = (tmp_path / name).read_bytes() == (by_position / name).read_bytes()
    assert same is (name == 'filters.png')


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--record=999'], '--record=999: the split validation holds 13 records'),
    (['--record=1.2.3/4'], '--record=1.2.3/4: no such record in the split validation'),
    (['--record=-1'], '--record=-1: no such record'),
    (['--split=nowhere'], "no split 'nowhere'"),
    (['--data_dir=/nowhere'], 'luna16-extract'),
    (['--workdir=/nowhere'], 'no run in it'),
    (['--workdir='], '--workdir is required'),
    (['--output_dir=/dev/null/x'], '--output_dir'),
    (['--recrod=1'], 'Did you mean: record'),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
  flags, message, other_trained, tmp_path, error_line
):
  defaults = [f'--workdir={other_trained}', f'--output_dir={tmp_path}']
  assert run(*defaults, *flags) == 2
  assert message in error_line()
  assert not list(tmp_path.iterdir())


def test_patches_of_another_kind_are_refused(
  other_trained, data_dir, tmp_path, error_line
):
  folder = pathlib.Path('luna16_patches', 'axial_50px_all', '1.0.0')
  copy = shutil.copytree(data_dir / folder, tmp_path / 'data' / folder)
  fields = atomic_files.read_json(copy / 'metadata.json')
  fields['patch']['spacing_mm'] = 0.5
  atomic_files.write_json(copy / 'metadata.json', fields)
  flags = [f'--workdir={other_trained}', f'--data_dir={tmp_path / "data"}']
  assert run(*flags, f'--output_dir={tmp_path / "pictures"}') == 2
  line = error_line()
  assert 'was trained on patches' in line
  assert 'give the --data_dir it was trained on' in line
