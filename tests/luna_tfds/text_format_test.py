import pytest

from luna_tfds import text_format


@pytest.mark.parametrize(
  ('count', 'expected'), [(0, '0 scans'), (1, '1 scan'), (2, '2 scans')]
)
def test_count_text(count, expected):
  assert text_format.count_text(count, 'scan') == expected


@pytest.mark.parametrize(
  ('num_bytes', 'expected'),
  [
    (0, '0 B'),
    (999, '999 B'),
    (1_000, '1 kB'),
    (1_524_000, '1.52 MB'),
    (2_500_000_000, '2.5 GB'),
    (119_000_000_000, '119 GB'),
    (12_000_000_000_000, '12 TB'),
    (12_000_000_000_000_000, '1.2e+04 TB'),
  ],
)
def test_bytes_text(num_bytes, expected):
  assert text_format.bytes_text(num_bytes) == expected
