"""Records of a split with the probabilities that a model gives them."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from luna_tfds import record_keys
from luna_tfds.command_line import progress
from luna_tfds.text_format import shown_text
from model.metrics import classification
from trainer.data import damaged_shards
from trainer.data import input_pipeline
from trainer.data.split_source import SplitSource
from trainer.scoring import inference

# Of a split string, in the description of the progress.
_MAX_SPLIT_CHARS = 24


@dataclasses.dataclass(frozen=True)
class ScoredRecords:
  """All features of some records but the image, and their probabilities.

  Attributes:
    label: [n] int64, 1 for nodules.
    seriesuid: [n] str, '' if unknown.
    candidate_id: [n] int64.
    subset: [n] int64.
    center_xyz_mm: [n, 3] float64.
    spacing_xyz_mm: [n, 3] float32, of the image as stored.
    nodule_id: [n] int64, -1 for none.
    diameter_mm: [n] float32, 0 for none.
    excluded: [n] bool.
    probability: [n] float64.
  """

  label: np.ndarray
  seriesuid: np.ndarray
  candidate_id: np.ndarray
  subset: np.ndarray
  center_xyz_mm: np.ndarray
  spacing_xyz_mm: np.ndarray
  nodule_id: np.ndarray
  diameter_mm: np.ndarray
  excluded: np.ndarray
  probability: np.ndarray

  def __len__(self) -> int:
    return len(self.probability)

  @property
  def keys(self) -> list[str]:
    """`seriesuid/candidate_id` of each record."""
    pairs = zip(self.seriesuid, self.candidate_id)
    return [record_keys.record_key(str(s), int(c)) for s, c in pairs]

  @property
  def groups(self) -> np.ndarray:
    """[n] the scan of each record; where it is unknown, a group for each record."""
    return np.array([s or k for s, k in zip(self.seriesuid, self.keys)], object)

  @property
  def scans_known(self) -> bool:
    """Whether every record tells its scan; the article's patches do not."""
    return bool(np.all(self.seriesuid != ''))

  @property
  def num_scans(self) -> int | None:
    """Scans of the records; None if unknown."""
    return len(np.unique(self.seriesuid)) if self.scans_known else None

  @property
  def without_excluded(self) -> ScoredRecords:
    """The records that are a true or a false answer.

    A candidate that hits an excluded finding is neither a nodule nor a true negative: the
    radiologists marked something there, but fewer than three of four a nodule of 3 mm or
    more. LUNA16's official script ignores marks there.
    """
    return self.select(~self.excluded) if self.excluded.any() else self

  def select(self, kept: np.ndarray) -> ScoredRecords:
    """Returns the records where `kept`, [n] bool, is true."""
    names = [field.name for field in dataclasses.fields(self)]
    return ScoredRecords(**{name: getattr(self, name)[kept] for name in names})

  @property
  def has_both_classes(self) -> bool:
    """Whether there are nodules and non-nodules."""
    return classification.has_both_classes(self.label)


_FEATURES = tuple(
  field.name
  for field in dataclasses.fields(ScoredRecords)
  if field.name != 'probability'
)


def score_split(
  models: Sequence[inference.InferenceModel],
  source: SplitSource,
  *,
  tta: bool = False,
  batch_size: int | None = None,
) -> ScoredRecords:
  """Scores every record of a split once, in stored order; displays the progress.

  Args:
    models: their probabilities are averaged.
    source: the split.
    tta: whether to average over the eight flips and rotations by 90 degrees too.
    batch_size: records of a batch; by default see `input_pipeline.evaluation_batches`.

  Raises:
    JobError: a shard cannot be read.
  """
  columns: dict[str, list[np.ndarray]] = {name: [] for name in _FEATURES}
  probabilities = []
  batches = input_pipeline.evaluation_batches(source, batch_size, ('image', *_FEATURES))
  description = f'scoring {shown_text(source.split, _MAX_SPLIT_CHARS)}'
  with (
    damaged_shards.reported(source),
    progress.displayed('records', description) as report,
  ):
    done = 0
    report(done, source.num_records)
    for batch in batches:
      for name in _FEATURES:
        columns[name].append(batch[name].numpy())
      probabilities.append(
        inference.mean_probabilities(models, batch['image'], tta=tta)
      )
      done += len(probabilities[-1])
      report(done, source.num_records)
  features = {name: np.concatenate(parts) for name, parts in columns.items()}
  features['seriesuid'] = features['seriesuid'].astype(str)
  return ScoredRecords(**features, probability=np.concatenate(probabilities))


def concatenate(parts: Sequence[ScoredRecords]) -> ScoredRecords:
  """Joins scored records, e.g. of the folds of a cross-validation."""
  names = [field.name for field in dataclasses.fields(ScoredRecords)]
  return ScoredRecords(
    **{name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
  )
