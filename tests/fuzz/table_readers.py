"""Readers of tables and lists: candidates, findings, submissions, series, the article's."""

import functools
import io
import zipfile

import fake_data
import input_files
import mutations
import numpy as np
from readers import Reader
from readers import mutate_one

from beam_jobs import plan as plan_lib
from luna_tfds import CONFIGS
from luna_tfds import article_patches
from luna_tfds import tables
from model.metrics.resampling import Resampling
from trainer.scoring import froc_submission

_SCANS = ('1.2.826.0.0', '1.2.826.0.1')
_ROWS = [(_SCANS[i % 2], i * 1.5 - 3, -12.25, 100.125 + i, i % 2) for i in range(6)]


def _table_seeds(folder, name, value_column):
  folder.mkdir()
  path = folder / name
  rows = [(*row[:4], row[4] * 0.5 + 0.25) for row in _ROWS]
  rows = _ROWS if value_column == 'class' else rows
  style = {'value_column': value_column}
  write = functools.partial(fake_data.write_candidates, rows=rows, **style)
  plain = {name: write(path).read_bytes()}
  crlf = write(path, line_end='\r\n', last_newline=False)
  return [
    plain,
    {name: crlf.read_bytes()},
    {f'{name}.zip': write(folder / f'{name}.zip', zipped=True).read_bytes()},
  ]


@functools.cache
def _long_table():
  """A zipped table that is much longer than the file."""
  packed = io.BytesIO()
  with (
    zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive,
    archive.open('x.csv', 'w', force_zip64=True) as file,
  ):
    file.write(b'seriesuid,coordX,coordY,coordZ,class,diameter_mm,probability\n')
    for _ in range(300):
      file.write(b'1,1,1,1,1,1,1\n' * 100_000)
  return packed.getvalue()


def _mutate_zipped(data, rng):
  if rng.random() < 0.0005:
    return _long_table()
  return mutations.mutate_zip(
    data, rng, lambda _, content, rng: mutations.mutate_csv(content, rng)
  )


def _mutate_plain(data, rng):
  if rng.random() < 0.2:
    return mutations.mutate_bytes(data, rng)
  return mutations.mutate_csv(data, rng)


_mutate_table = mutate_one(_zip=_mutate_zipped, _csv=_mutate_plain, _txt=_mutate_plain)


def _path(folder):
  return next(iter(folder.iterdir()))


def _read_candidates(folder):
  table = tables.read_candidates(_path(folder))
  table.groups()
  assert set(table.class_labels) <= {0, 1}


def _read_findings(folder):
  table = tables.read_findings(_path(folder))
  table.groups()
  assert np.isfinite(table.diameters_mm).all()


def _submission_seeds(folder):
  folder.mkdir()
  seeds = _table_seeds(folder / 'a', 'submission.csv', 'probability')[:1]
  nodules = fake_data.write_findings(
    folder / 'annotations.csv', [(*row[:4], 6.5) for row in _ROWS[:2]]
  )
  listed = {'seriesuids.csv': '\n'.join(_SCANS).encode()}
  return [{**seeds[0], **listed, 'annotations.csv': nodules.read_bytes()}]


def _score_submission(folder):
  annotations = folder / 'annotations.csv'
  reference = froc_submission.read_reference(
    annotations, annotations, folder / 'seriesuids.csv'
  )
  submission = tables.read_table(folder / 'submission.csv', 'probability')
  result = froc_submission.score_submission(submission, reference, Resampling(4))
  assert 0 <= result.curve.cpm <= 1 or np.isnan(result.curve.cpm)
  result.to_json()


def _seriesuids_seeds(folder):
  del folder
  text = '\n'.join(_SCANS)
  return [{'s.csv': text.encode()}, {'s.csv': f'seriesuid\r\n{text}\r\n'.encode()}]


def _download_seeds(folder):
  scans = [fake_data.make_scan(seed, seed, shape_zyx=(3, 4, 5)) for seed in (0, 9)]
  fake_data.write_download(folder, scans)
  return [input_files.read(folder)]


def _mutate_download(files, rng):
  files = dict(files)
  name = rng.choice(sorted(files))
  if rng.randrange(8) == 0:
    content = files.pop(name)
    if rng.random() < 0.5:
      files[rng.choice(('subset3/x.mhd', 'subset9/a/b.MHD', 'x.csv'))] = content
  elif name.endswith('.csv'):
    files[name] = _mutate_plain(files[name], rng)
  elif name.endswith('.mhd'):
    files[name] = mutations.mutate_header(files[name], rng)
  else:
    files[name] = mutations.mutate_bytes(files[name], rng)
  return files


def _plan(folder):
  plan = plan_lib.make_plan(folder, CONFIGS['axial_50px'])
  assert plan.num_records == sum(1 for s in plan.shards for _ in s.record_keys())


def _article_seeds(folder):
  fake_data.write_article(folder, sizes=((50, 50), (31, 44)))
  return [input_files.read(folder)]


def _mutate_article(files, rng):
  files = dict(files)
  name = rng.choice(sorted(files))
  if name.endswith('.txt'):
    mutate = mutations.mutate_lines
    if rng.random() < 0.5:
      mutate = mutations.mutate_bytes
    if rng.random() < 0.2:
      files[name] = files[name].replace(b'val/', rng.choice((b'../', b'/', b'val/\0')))
  else:
    mutate = mutations.mutate_bytes
  files[name] = mutate(files[name], rng)
  return files


def _read_article(folder):
  for images in article_patches.read_lists(folder).values():
    for image in images:
      hu, _ = article_patches.read_image(image)
      assert hu.shape == (50, 50, 1)


_TABLES = ('luna_tfds.tables',)
_ALL = (
  Reader(
    'candidates',
    functools.partial(_table_seeds, name='candidates.csv', value_column='class'),
    _mutate_table,
    _read_candidates,
    _TABLES,
  ),
  Reader(
    'findings',
    functools.partial(_table_seeds, name='a.csv', value_column='diameter_mm'),
    _mutate_table,
    _read_findings,
    _TABLES,
  ),
  Reader(
    'submission',
    _submission_seeds,
    _mutate_table,
    _score_submission,
    (*_TABLES, 'trainer.scoring.froc_submission', 'model.metrics.froc_matching'),
  ),
  Reader(
    'seriesuids',
    _seriesuids_seeds,
    _mutate_table,
    lambda folder: froc_submission.read_seriesuids(folder / 's.csv'),
    ('trainer.scoring.froc_submission',),
  ),
  Reader(
    'download',
    _download_seeds,
    _mutate_download,
    _plan,
    (*_TABLES, 'luna_tfds.download', 'luna_tfds.input_checks', 'luna_tfds.matching'),
  ),
  Reader(
    'article',
    _article_seeds,
    _mutate_article,
    _read_article,
    ('luna_tfds.article_patches',),
  ),
)
READERS = {reader.name: reader for reader in _ALL}
