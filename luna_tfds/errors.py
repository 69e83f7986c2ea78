"""The errors a user can cause, each told in one line."""


class UsageError(ValueError):
  """A flag or an input file is wrong: the message names it and says what to do.

  Commands print the message and exit with code 2.
  """


class ScanError(ValueError):
  """A scan cannot be read: the message says why."""


class JobError(RuntimeError):
  """A job failed though its inputs were right: the message says what was kept.

  Commands print the message and exit with code 1.
  """
