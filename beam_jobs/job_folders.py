"""Chooses the kind of job folder for a dataset."""

from __future__ import annotations

import pathlib

from beam_jobs.disk_job_folder import DiskJobFolder
from beam_jobs.job_folder import JobFolder
from beam_jobs.store_job_folder import StoreJobFolder
from luna_tfds.files.store_path import StorePath


def job_folder(final: pathlib.Path) -> JobFolder:
  """Returns the folder of a job.

  Args:
    final: the dataset's folder, on a disk or in an object store.
  """
  return StoreJobFolder(final) if isinstance(final, StorePath) else DiskJobFolder(final)
