"""From stored records to batches.

The words that these modules use:

- record number: place of a record in its split, from 0, in stored order.
- slice: the records of one shard that belong to the split (`split_source.ShardSlice`).
- pass: one pass over the split. With rejection it draws each record of a class with the
  keep probability of the class; the next pass draws the next records of the class.
- epoch: a fixed number of batches. It may end in the middle of a pass, where the next epoch
  goes on.
- chunk: up to 256 consecutive records of a file, whose order is kept. The chunks of a pass
  are read in random order.
- range: the records between the first and the last drawn one of a chunk, which are read at
  once (`record_blocks.RecordRanges`).
- block: some serialised records of a range, [n] string, which are handled at once.

Example: a split of two shards with 5 records each, of which 2 and 7 are nodules, balanced
by rejection. A pass draws the nodules 2 and 7, and two of the others, say 0 and 9. An epoch
of three batches of two records takes all four records of pass 0 and the first two of pass 1.
"""
