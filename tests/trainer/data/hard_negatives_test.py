import numpy as np
import pytest

from luna_tfds.errors import UsageError
from trainer.data.hard_negatives import read_hard_negatives

HEADER = 'seriesuid,candidate_id,label,probability\n'


@pytest.mark.parametrize(
  ('probabilities', 'hard'),
  [
    # The tenth with the highest probabilities.
    (np.arange(20) / 100, [18, 19]),
    # And all above 0.5.
    ([0.6, 0.1, 0.7, 0.2, 0.3, 0.5, 0.9, 0.0, 0.1, 0.1, 0.2], [0, 2, 6]),
    # All are equal: none is harder than another.
    ([0.2] * 5, [0, 1, 2, 3, 4]),
  ],
)
def test_hard_are_the_highest_tenth_and_the_false_positives(
  tmp_path, probabilities, hard
):
  path = tmp_path / 'predictions.csv'
  rows = [f'1.2,{k},0,{p}\n' for k, p in enumerate(probabilities)]
  # A nodule is never a hard negative.
  path.write_text(HEADER + '1.2,99,1,0.999\n' + ''.join(rows))
  assert read_hard_negatives(str(path)) == tuple(f'1.2/{k}' for k in hard)


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    ('seriesuid,candidate_id,label\n', 'the column probability is missing'),
    ('', 'the column seriesuid is missing'),
    (HEADER + '1.2,3,0,0.5\n1.2,x,0,0.5\n', 'line 3: .*x'),
    (HEADER + '1.2,3,0,1.5\n', 'line 2: label must be 0 or 1, and probability'),
    (HEADER + '1.2,3,0,nan\n', 'line 2: label must be 0 or 1, and probability'),
    (HEADER + '1.2,3,2,0.5\n', 'line 2: label must be 0 or 1, and probability'),
    (HEADER + '1.2,3,0\n', 'line 2: '),
    (HEADER + '1.2,3,1,0.5\n', 'holds no non-nodule'),
    (None, 'cannot be read'),
  ],
)
def test_a_wrong_file_of_predictions_is_refused(tmp_path, text, problem):
  path = tmp_path / 'predictions.csv'
  if text is not None:
    path.write_text(text)
  with pytest.raises(UsageError, match=rf'predictions\.csv.*{problem}'):
    read_hard_negatives(str(path))


def test_a_long_value_is_shortened_in_the_message(tmp_path):
  path = tmp_path / 'predictions.csv'
  path.write_text('seriesuid,candidate_id,label,probability\na,0,0,' + 'x' * 5000)
  with pytest.raises(UsageError, match=r'line 2: .*xxx') as caught:
    read_hard_negatives(str(path))
  assert len(str(caught.value)) < 500
