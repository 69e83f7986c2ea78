"""Formats counts, sizes and texts for messages."""

_MAX_SHOWN_CHARS = 80
_MAX_ERROR_CHARS = 240


def count_text(count: int, noun: str, plural: str | None = None) -> str:
  """Returns a count with its noun, e.g. '1 scan' or '2 scans'.

  Args:
    count: the number.
    noun: the noun in the singular.
    plural: the plural, where it is not the noun with an s.
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


def shown_text(text: str, max_chars: int = _MAX_SHOWN_CHARS) -> str:
  """Returns text of a file for a message: shortened, of one line, in any encoding."""
  shown = text if len(text) <= max_chars else f'{text[:max_chars]}...'
  return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


def error_text(error: Exception) -> str:
  """Returns the first line of the message of a library's error, shortened.

  The message of a KeyError is the key alone.
  """
  if isinstance(error, KeyError) and error.args:
    return shown_text(f'{error} is missing', _MAX_ERROR_CHARS)
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return shown_text(lines[0], _MAX_ERROR_CHARS)
