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


def test_texts_of_files_are_shown_on_one_short_line():
  assert text_format.shown_text('a\nb\t\udcff') == r'a\nb\t\udcff'
  assert text_format.shown_text('x' * 90_000) == 'x' * 80 + '...'


def test_errors_of_libraries_are_shown_on_one_short_line():
  error = ValueError('No layer.\n\nFull object config: {...}')
  assert text_format.error_text(error) == 'No layer.'
  assert text_format.error_text(KeyError()) == 'KeyError'
  assert text_format.error_text(KeyError('name')) == "'name' is missing"
