"""What a report holds: headlines, and sections with tables, pictures and patches."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of a table; a cell with text only may be a plain string.

  Attributes:
    text: the text of the cell.
    small: a small line below it, e.g. a confidence interval; '' for none.
    href: a path relative to the page, which the text links to; '' for none.
  """

  text: str
  small: str = ''
  href: str = ''


Row = Sequence[Cell | str]


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of the report.

  Attributes:
    uri: a data URI.
    caption: what it shows, also its text alternative.
    wide: whether it takes a whole line.
    dark_uri: the same for dark pages; '' if one will do for both.
  """

  uri: str
  caption: str
  wide: bool = False
  dark_uri: str = ''


@dataclasses.dataclass(frozen=True)
class Tile:
  """A patch and what is known of it.

  Attributes:
    uri: data URI of the patch.
    title: shown in bold, e.g. its probability.
    lines: shown below the title.
    seriesuid: seriesuid of its scan; '' if unknown.
  """

  uri: str
  title: str
  lines: Sequence[str] = ()
  seriesuid: str = ''


@dataclasses.dataclass(frozen=True)
class TileGroup:
  """Patches under a heading of their own."""

  heading: str
  tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True)
class Headline:
  """A metric that is shown large, with a small line below it."""

  label: str
  value: str
  small: str = ''


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the report: heading, paragraph, table, pictures and patches.

  Attributes:
    title: the heading.
    text: a paragraph.
    header: column headings of the table.
    rows: rows of the table, a cell for each column.
    summary_rows: how many rows at the end of the table summarise the others.
    names: whether the table lists names and values rather than numbers.
    pictures: shown below the table.
    tile_groups: shown below the pictures.
  """

  title: str
  text: str = ''
  header: Sequence[str] = ()
  rows: Sequence[Row] = ()
  summary_rows: int = 0
  names: bool = False
  pictures: Sequence[Picture] = ()
  tile_groups: Sequence[TileGroup] = ()


@dataclasses.dataclass(frozen=True)
class Page:
  """All of a report.

  Attributes:
    title: title of the page.
    subtitle: a line below it.
    sections: the sections, in order.
    headlines: metrics shown large, before the sections.
    notices: what the reader must know to judge the metrics.
  """

  title: str
  subtitle: str
  sections: Sequence[Section]
  headlines: Sequence[Headline] = ()
  notices: Sequence[str] = ()
