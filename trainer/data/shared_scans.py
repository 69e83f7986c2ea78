"""Which scans the records of a split are of, and which scans two splits share."""

from __future__ import annotations

from trainer.data import damaged_shards
from trainer.data import input_pipeline
from trainer.data.dataset import OpenedDataset
from trainer.data.split_source import SplitSource


def read_seriesuids(source: SplitSource) -> set[str]:
  """Reads the seriesuids of a split; '' stands for a scan that is not known.

  Raises:
    JobError: a shard cannot be read.
  """
  uids: set[bytes] = set()
  if source.slices:
    with damaged_shards.reported(source):
      for batch in input_pipeline.evaluation_batches(source, names=('seriesuid',)):
        uids.update(batch['seriesuid'].numpy().tolist())
  return {uid.decode() for uid in uids}


def shared_scans(dataset: OpenedDataset, a: SplitSource, b: SplitSource) -> set[str]:
  """Returns the seriesuids of the scans with records in both of two splits.

  The extraction writes all records of a scan to one shard. So only the shards that are in
  both splits are read; there are none in splits of whole shards.

  Args:
    dataset: dataset of both splits.
    a: a split.
    b: another.

  Raises:
    JobError: a shard cannot be read.
  """
  paths = {item.path for item in a.slices} & {item.path for item in b.slices}
  in_a, in_b = (
    read_seriesuids(dataset.in_files(source, paths)) if paths else set()
    for source in (a, b)
  )
  return in_a & in_b - {''}
