import pytest

from trainer.data import shared_scans


def scans_of(dataset, split):
  records = dataset.builder.as_dataset(split=split).as_numpy_iterator()
  return {record['seriesuid'].decode() for record in records}


def test_seriesuids_are_those_of_the_records(opened_dataset):
  source = opened_dataset.open_split('train[3:40]+test')
  expected = scans_of(opened_dataset, 'train[3:40]+test')
  assert shared_scans.read_seriesuids(source) == expected


@pytest.mark.parametrize('cut', [5, 20, 70])
def test_scans_with_records_in_both_splits_are_found(opened_dataset, cut):
  a, b = f'train[:{cut}]', f'validation+train[{cut}:]'
  expected = scans_of(opened_dataset, a) & scans_of(opened_dataset, b)
  sources = (opened_dataset.open_split(split) for split in (a, b))
  assert shared_scans.shared_scans(opened_dataset, *sources) == expected
  assert expected


def test_splits_of_whole_shards_share_none_and_are_not_read(
  opened_dataset, monkeypatch
):
  sources = [
    opened_dataset.open_split(split)
    for split in ('train[:2shard]', 'train[2shard:]+validation')
  ]
  lists = [scans_of(opened_dataset, source.split) for source in sources]
  assert not lists[0] & lists[1]
  monkeypatch.delattr(shared_scans, 'read_seriesuids')
  assert shared_scans.shared_scans(opened_dataset, *sources) == set()


def test_scans_that_are_not_known_are_not_shared(opened_dataset, monkeypatch):
  monkeypatch.setattr(shared_scans, 'read_seriesuids', lambda source: {''})
  sources = [opened_dataset.open_split(split) for split in ('train[:5]', 'train[5:]')]
  assert shared_scans.shared_scans(opened_dataset, *sources) == set()
