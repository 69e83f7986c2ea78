"""Finds single records of a split, and reads their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luna_tfds import records
from luna_tfds.errors import UsageError
from trainer.data import damaged_shards
from trainer.data import input_pipeline
from trainer.data.split_source import SplitSource


def read_images(source: SplitSource, positions: Sequence[int]) -> np.ndarray:
  """Reads the images at some positions of the stored order, in the order given.

  Args:
    source: the split.
    positions: from 0; few, because their images are all held.

  Returns:
    int16 HU [len(positions), *image_shape].
  """
  images = np.zeros((len(positions), *source.image_shape), np.int16)
  start = 0
  with damaged_shards.reported(source):
    for batch in input_pipeline.evaluation_batches(source, names=('image',)):
      stop = start + len(batch['image'])
      for slot, position in enumerate(positions):
        if start <= position < stop:
          images[slot] = batch['image'][position - start].numpy()
      start = stop
  return images


def position_of(source: SplitSource, record: str) -> int:
  """Returns the position of a record in the stored order of a split.

  Args:
    source: the split.
    record: its position, from 0, or its key `seriesuid/candidate_id`.

  Raises:
    UsageError: there is no such record.
  """
  if record.isascii() and record.isdigit():
    if int(record) >= source.num_records:
      raise UsageError(
        f'--record={record}: the split {source.split} holds {source.num_records} '
        'records, counted from 0'
      )
    return int(record)
  start = 0
  names = ('seriesuid', 'candidate_id')
  with damaged_shards.reported(source):
    for batch in input_pipeline.evaluation_batches(source, names=names):
      keys: list[bytes] = records.batch_keys(batch).numpy().tolist()
      if record.encode() in keys:
        return start + keys.index(record.encode())
      start += len(keys)
  raise UsageError(f'--record={record}: no such record in the split {source.split}')
