"""The processes of local workers; the pipeline itself is tested with the job."""

import subprocess
import sys
import tempfile

import pytest

from beam_jobs import disk_job_folder
from beam_jobs import pipeline
from luna_tfds import CONFIGS
from luna_tfds.processes.worker_processes import WorkerDiedError

LAUNCHER = """
import sys
from beam_jobs import extract_patches
code = extract_patches.run(['luna16-extract', *sys.argv[1:]])
print(code, 'apache_beam' in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize(('num_workers', 'loads_beam'), [(1, True), (2, False)])
def test_the_launcher_of_local_workers_does_not_load_beam(
  num_workers, loads_beam, download, tmp_path
):
  flags = [f'--luna_dir={download.folder}', f'--data_dir={tmp_path}']
  flags += ['--config=axial_50px_all', f'--num_workers={num_workers}']
  done = subprocess.run(
    [sys.executable, '-c', LAUNCHER, *flags], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['0', str(loads_beam)], done.stderr


def test_temporary_folders_of_a_killed_worker_are_deleted(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  abandoned = tmp_path / 'luna16-temporary-abandoned'

  def call_in_processes(function, arguments):
    abandoned.mkdir()
    raise WorkerDiedError('a worker process was killed')

  monkeypatch.setattr(pipeline.worker_processes, 'call_in_processes', call_in_processes)
  folder = disk_job_folder.DiskJobFolder(tmp_path / '1.0.0')
  work = pipeline.ShardWork(['a', 'b'], CONFIGS['axial_50px'].spec, 0, folder)
  with pytest.raises(WorkerDiedError):
    pipeline.run_in_processes(work, None, 2)
  assert not abandoned.exists()
