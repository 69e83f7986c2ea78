import fake_source
import pytest

from luna_tfds.errors import UsageError
from trainer.data.balance import plan_balance


def test_auto_takes_streams_where_rejection_reads_too_much(tmp_path, small_split):
  config = fake_source.input_config()
  assert plan_balance(small_split.source, config).mode == 'rejection'
  rare = fake_source.write_split(tmp_path, 400, 4).source
  balance = plan_balance(rare, config)
  assert balance.mode == 'streams'
  # Of 404 records 4 nodules and as many non-nodules are kept.
  assert balance.kept_per_pass == pytest.approx(8)
  assert balance.reads_per_kept_record == pytest.approx(50.5)


@pytest.mark.parametrize(
  ('mode', 'text'),
  [
    (
      'rejection',
      'balance: rejection, 50.0% of class nodule; rejection reads 3.0 records for each one it '
      'keeps',
    ),
    (
      'streams',
      'balance: streams, 50.0% of class nodule; rejection would read 3.0 records for each one '
      'it keeps',
    ),
    ('none', 'balance: none (classes as they are), 16.7% of class nodule'),
  ],
)
def test_balance_is_described_in_one_line(small_split, mode, text):
  balance = plan_balance(small_split.source, fake_source.input_config(balance=mode))
  assert str(balance) == text


@pytest.mark.parametrize(
  ('fraction', 'keep_negative', 'keep_nodule'),
  [
    # 60 nodules of 300 + 60 are a sixth: the class that is in short supply is whole.
    (0.05, 1.0, 0.2631579),  # 300 * 0.05 / 0.95 = 15.789 of the 60 nodules
    (0.5, 0.2, 1.0),  # 60 of the 300 non-nodules
    (0.9, 0.0222222, 1.0),  # 60 / 9 = 6.667 of them
  ],
)
def test_class_in_short_supply_is_kept_whole(
  small_split, fraction, keep_negative, keep_nodule
):
  config = fake_source.input_config(balance='rejection', positive_fraction=fraction)
  balance = plan_balance(small_split.source, config)
  assert balance.keep.non_nodule == pytest.approx(keep_negative, rel=1e-5)
  assert balance.keep.nodule == pytest.approx(keep_nodule, rel=1e-5)
  assert balance.keep.dropped == 0
  kept = 300 * keep_negative + 60 * keep_nodule
  assert balance.kept_per_pass == pytest.approx(kept, rel=1e-5)
  assert balance.reads_per_kept_record == pytest.approx(360 / kept, rel=1e-5)
  assert float(balance.nodule_fraction) == fraction


@pytest.mark.parametrize('fraction', [0.5, 0.35, 0.123456])
def test_share_of_nodules_is_the_configured_one(small_split, fraction):
  config = fake_source.input_config(balance='streams', positive_fraction=fraction)
  balance = plan_balance(small_split.source, config)
  assert balance.nodule_fraction == pytest.approx(fraction, abs=1e-9)


def test_a_class_without_records_cannot_be_balanced(tmp_path):
  source = fake_source.write_split(tmp_path, 8, 0).source
  with pytest.raises(
    ValueError, match='8 non-nodules and 0 nodule candidates; both are needed'
  ):
    plan_balance(source, fake_source.input_config())
  assert (
    plan_balance(source, fake_source.input_config(balance='none')).nodule_fraction == 0
  )


def test_a_split_of_excluded_records_alone_is_refused(tmp_path):
  source = fake_source.write_split(tmp_path, 4, 2, excluded=range(6)).source
  config = fake_source.input_config(balance='none', drop_excluded=True)
  with pytest.raises(ValueError, match="all records of the split 'train' are excluded"):
    plan_balance(source, config)


def test_hard_negatives_of_another_split_are_refused(tmp_path, small_split):
  path = tmp_path / 'predictions.csv'
  path.write_text('seriesuid,candidate_id,label,probability\n9.9,1,0,0.7\n')
  config = fake_source.input_config(hard_negatives=str(path))
  with pytest.raises(UsageError, match='none of its hard non-nodules is in the split'):
    plan_balance(small_split.source, config)


@pytest.mark.parametrize('mode', ['rejection', 'none'])
def test_share_of_nodules_counts_only_records_that_are_not_dropped(
  with_excluded, excluded_numbers, mode
):
  config = fake_source.input_config(drop_excluded=True, balance=mode)
  balance = plan_balance(with_excluded.source, config)
  remaining = [
    y for n, y in enumerate(with_excluded.labels) if n not in excluded_numbers
  ]
  expected = sum(remaining) / len(remaining) if mode == 'none' else 0.5
  assert balance.nodule_fraction == pytest.approx(expected)
  # The records that are dropped are read, too.
  assert balance.reads_per_kept_record * balance.kept_per_pass == pytest.approx(360)
