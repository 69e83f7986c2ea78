"""Errors that a user can cause; each message is one line."""


class UsageError(ValueError):
  """A flag or an input file is invalid; the message names it and the fix.

  Commands print the message and exit with code 2.
  """


class ScanError(ValueError):
  """A scan cannot be read; the message names the file and the reason."""


class JobError(RuntimeError):
  """A job with valid inputs failed; the message says what was kept for the next run.

  Commands print the message and exit with code 1.
  """
