"""What the records of a shard are made from: scans with candidates, or article patches."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

import numpy as np

from luna_tfds import article_patches
from luna_tfds import matching
from luna_tfds.errors import ScanError
from luna_tfds.files import store_path
from luna_tfds.scans import meta_image_files


@dataclasses.dataclass(frozen=True)
class ScanTask:
  """The candidates of one scan; the arrays have one entry per candidate.

  Attributes:
    seriesuid: the scan.
    path: its `.mhd` file.
    subset: 0..9.
    candidate_ids: [n] int64, rows in the candidates file.
    labels: [n] int8, 1 for a nodule.
    centers_xyz_mm: [n, 3] float64.
    matches: the finding that each candidate hits.
  """

  seriesuid: str
  path: str
  subset: int
  candidate_ids: np.ndarray
  labels: np.ndarray
  centers_xyz_mm: np.ndarray
  matches: matching.CandidateMatches

  @property
  def num_scans(self) -> int:
    """Number of scans to read."""
    return 1


@dataclasses.dataclass(frozen=True)
class ArticleTask:
  """Some of the article's published patches."""

  images: tuple[article_patches.ArticleImage, ...]

  @property
  def labels(self) -> np.ndarray:
    """[n] int8, 1 for a nodule."""
    return np.array([image.label for image in self.images], np.int8)

  @property
  def num_scans(self) -> int:
    """Number of scans to read: the article published only patches."""
    return 0


Task = ScanTask | ArticleTask


def input_files(task: Task) -> list[pathlib.Path]:
  """Returns the files that the records of a task are made from."""
  if isinstance(task, ArticleTask):
    return [image.path for image in task.images]
  path = store_path.as_path(task.path)
  files = [path]
  # An invalid header is reported when the worker opens the scan.
  with contextlib.suppress(ScanError):
    files.append(meta_image_files.data_file_of(path))
  return files
