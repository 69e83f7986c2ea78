"""Formats counts and sizes for messages."""


def count_text(count: int, noun: str, plural: str | None = None) -> str:
  """Returns a count with its noun, e.g. '1 scan' or '2 scans'.

  Args:
    count: how many.
    noun: in the singular.
    plural: if it is not the noun and an s.
  """
  return f'{count} {noun if count == 1 else plural or noun + "s"}'


def bytes_text(num_bytes: int) -> str:
  """Returns a size in decimal units, e.g. '1.52 GB'."""
  value = float(num_bytes)
  for unit in ('B', 'kB', 'MB', 'GB'):
    if value < 1000:
      return f'{value:.3g} {unit}'
    value /= 1000
  return f'{value:.3g} TB'
