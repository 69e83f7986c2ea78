import pytest

from trainer import train


def run(*arguments):
  return train.run(['luna16-train', *arguments])


@pytest.mark.parametrize(
  ('flag', 'problem'),
  [
    ('--batch_size=0', '--batch_size must be 1 or more. Received: 0'),
    ('--epochs=0', '--epochs must be 1 or more'),
    ('--model=resnet', '--model=resnet: value should be one of'),
    ('--augment=crazy', '--augment=crazy: value should be one of'),
    ('--threshold=best', '--threshold must be max_f1'),
    ('--augment_scale=-1', '--augment_scale must be 0 or more'),
    ('--batch_size=many', '--batch_size=many: must be an integer'),
    ('--workdir=', '--workdir is required'),
  ],
)
def test_a_bad_flag_is_refused_in_one_line(tmp_path, error_line, flag, problem):
  assert run(f'--workdir={tmp_path}', flag) == 2
  assert error_line().startswith(f'luna16-train: error: {problem}')
  assert list(tmp_path.iterdir()) == []


def test_a_flag_with_a_typing_error_gets_a_suggestion(tmp_path, error_line):
  assert run(f'--workdir={tmp_path}', '--epohcs=3') == 2
  assert 'epochs' in error_line()


@pytest.mark.parametrize(
  ('flag', 'problem'),
  [
    ('--strategy=multiworker', '--strategy=multiworker: '),
    ('--train_split=trian', "has no split 'trian'"),
  ],
)
def test_what_the_dataset_or_keras_cannot_do_is_refused(
  data_dir, tmp_path, error_line, flag, problem, capfd
):
  code = run(
    f'--data_dir={data_dir}',
    '--dataset=axial_50px_all',
    f'--workdir={tmp_path / "run"}',
    flag,
  )
  assert code == 2
  assert problem in error_line()


def test_a_dataset_that_was_never_extracted_is_refused(tmp_path, error_line):
  assert run(f'--data_dir={tmp_path}', f'--workdir={tmp_path / "run"}') == 2
  assert 'make it with luna16-extract' in error_line()
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_training_on_two_devices(data_dir, tmp_path, fresh_python):
  """Two virtual CPU devices must be set up before TensorFlow starts."""
  code = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices('CPU')[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
from trainer import train
from trainer.training import distribution
replicas = distribution.make_strategy('mirrored').num_replicas_in_sync
code = train.run(['luna16-train', *sys.argv[1:]])
print(json.dumps([replicas, code]))
"""
  flags = [
    f'--data_dir={data_dir}',
    '--dataset=luna16_patches/axial_50px_all',
    f'--workdir={tmp_path}',
    '--strategy=mirrored',
    '--epochs=2',
    '--steps_per_epoch=2',
    '--batch_size=8',
    '--precision=float32',
  ]
  assert fresh_python(code, *flags) == [2, 0]
  assert (tmp_path / 'model.keras').is_file()
