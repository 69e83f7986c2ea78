import shutil
import subprocess
import sys

import oracles
import pytest

from trainer import inspect


@pytest.fixture
def copy(data_dir, tmp_path):
  """A data folder with a copy of `axial_50px_all` that a test may damage."""
  source = oracles.dataset_folder(data_dir)
  shutil.copytree(source, oracles.dataset_folder(tmp_path))
  return tmp_path


def verify(data_dir):
  flags = [f'--data_dir={data_dir}', '--dataset=axial_50px_all', '--verify']
  return inspect.run(['luna16-inspect', *flags])


def test_an_intact_dataset(copy, download, capsys):
  assert verify(copy) == 0
  captured = capsys.readouterr()
  assert f'{len(download.candidates)} records in 10 shards' in captured.out
  assert captured.err == ''


@pytest.mark.slow
def test_messages_of_tensorflow_are_hidden(data_dir):
  # In a new process: TensorFlow writes them while it is loaded.
  flags = [f'--data_dir={data_dir}', '--dataset=axial_50px_all', '--verify']
  done = subprocess.run(
    [sys.executable, '-m', 'trainer.inspect', *flags], capture_output=True, text=True
  )
  assert done.returncode == 0
  assert 'InitializeLog' not in done.stderr
  assert 'cuda' not in done.stderr.lower()


def test_a_damaged_dataset(copy, error_line):
  path = next(oracles.dataset_folder(copy).glob('*-test.tfrecord-*'))
  content = bytearray(path.read_bytes())
  content[-20] ^= 1
  path.write_bytes(content)
  assert verify(copy) == 1
  assert f'{path.name}: record ' in error_line()


def test_no_dataset(tmp_path, error_line):
  assert verify(tmp_path) == 2
  assert 'make it with luna16-extract' in error_line()
