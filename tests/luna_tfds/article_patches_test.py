import fake_data
import numpy as np
import oracles
from PIL import Image
import pytest

from luna_tfds import article_patches
from luna_tfds.errors import UsageError


@pytest.fixture
def folder(tmp_path):
  fake_data.write_article(tmp_path)
  return tmp_path


def write_list(folder, lines):
  (folder / 'traindatalabels.txt').write_text('\n'.join(lines) + '\n')


def save_image(path, grey_levels):
  """Writes a lossless image, whatever the suffix."""
  Image.fromarray(np.asarray(grey_levels, np.uint8)).save(path, format='PNG')
  return article_patches.ArticleImage(path, 0, 1)


def test_reads_the_lists(tmp_path):
  rows = fake_data.write_article(tmp_path)
  found = article_patches.read_lists(tmp_path)
  assert list(found) == ['train', 'validation']
  for split, images in found.items():
    assert [(i.path, i.label, i.candidate_id) for i in images] == rows[split]


def test_reads_a_test_list_too(folder):
  (folder / 'testdatalabels.txt').write_text('val/image_2001.jpg 1\n')
  (image,) = article_patches.read_lists(folder)['test']
  assert (image.path.name, image.label, image.candidate_id) == (
    'image_2001.jpg',
    1,
    2001,
  )


def test_blank_lines_and_missing_last_newline(folder):
  text = '\ntra/image_1000.jpg 0\r\n\r\ntra/image_1001.jpg 1'
  (folder / 'traindatalabels.txt').write_bytes(text.encode())
  images = article_patches.read_lists(folder)['train']
  assert [(i.candidate_id, i.label) for i in images] == [(1000, 0), (1001, 1)]


def test_grey_levels_become_hounsfield_units(tmp_path):
  grey_levels = np.zeros((50, 50))
  grey_levels[0, :6] = (0, 1, 51, 128, 254, 255)
  hu, padded = article_patches.read_image(
    save_image(tmp_path / 'image_1.jpg', grey_levels)
  )
  assert hu.dtype == np.int16
  assert hu.shape == (50, 50, 1)
  assert hu[0, :6, 0].tolist() == [-1000, -995, -720, -297, 395, 400]
  assert (hu[1:] == -1000).all()
  assert not padded


@pytest.mark.parametrize(('height', 'width'), [(31, 50), (50, 44), (1, 1)])
def test_small_patches_are_padded_on_the_right_and_at_the_bottom(
  height, width, tmp_path
):
  grey_levels = np.full((height, width), 255)
  hu, padded = article_patches.read_image(
    save_image(tmp_path / 'image_1.jpg', grey_levels)
  )
  assert padded
  assert (hu[:height, :width] == 400).all()
  assert (hu[height:] == -1000).all()
  assert (hu[:, width:] == -1000).all()


def test_a_jpeg_is_decoded(tmp_path):
  rows = fake_data.write_article(tmp_path)
  hu, _ = article_patches.read_image(article_patches.read_lists(tmp_path)['train'][0])
  np.testing.assert_array_equal(hu[..., 0], oracles.article_hu(rows['train'][0][0]))


def test_no_folder(tmp_path):
  with pytest.raises(UsageError, match='absent: no such folder'):
    article_patches.read_lists(tmp_path / 'absent')


def test_no_list(tmp_path):
  with pytest.raises(UsageError, match=r'none of traindatalabels\.txt, valdatalabels'):
    article_patches.read_lists(tmp_path)


@pytest.mark.parametrize('content', ['', '\n\n  \n'])
def test_empty_list(content, folder):
  (folder / 'traindatalabels.txt').write_text(content)
  with pytest.raises(UsageError, match=r'traindatalabels\.txt: is empty; remove it'):
    article_patches.read_lists(folder)


@pytest.mark.parametrize(
  'line',
  [
    'tra/image_1000.jpg',
    'tra/image_1000.jpg 2',
    'tra/image_1000.jpg one',
    'tra/image.jpg 1',
    '1',
    f'tra/image_{"1" * 300}.jpg 1',
    f'tra/{"é" * 150}_1.jpg 1',
  ],
)
def test_invalid_lines_are_rejected(line, folder):
  write_list(folder, ['tra/image_1001.jpg 1', line])
  with pytest.raises(
    UsageError, match=r'traindatalabels\.txt, line 2: expected "folder'
  ):
    article_patches.read_lists(folder)


def test_binary_list(folder):
  (folder / 'traindatalabels.txt').write_bytes(b'\xff\xfe\x00\x01\n')
  with pytest.raises(UsageError, match=r'traindatalabels\.txt, line 1: expected'):
    article_patches.read_lists(folder)


def test_listed_file_is_missing(folder):
  (folder / 'tra' / 'image_1001.jpg').unlink()
  with pytest.raises(
    UsageError, match=r'image_1001\.jpg: missing, but listed in .*, line 2'
  ):
    article_patches.read_lists(folder)


@pytest.mark.parametrize(
  'name', ['../image_1.jpg', '/etc/image_1.jpg', 'tra/../../i_1.jpg']
)
def test_files_outside_the_folder_are_refused(name, folder):
  write_list(folder, [f'{name} 1'])
  with pytest.raises(UsageError, match=r'line 1: .* is outside the folder of the list'):
    article_patches.read_lists(folder)


@pytest.mark.parametrize(('height', 'width'), [(51, 50), (50, 51), (512, 512)])
def test_large_images_are_refused(height, width, folder):
  save_image(folder / 'tra' / 'image_1001.jpg', np.zeros((height, width)))
  with pytest.raises(UsageError, match=rf'image_1001\.jpg: {width}x{height} pixels'):
    article_patches.read_lists(folder)


def test_files_that_are_not_images_are_rejected(folder):
  (folder / 'tra' / 'image_1001.jpg').write_bytes(b'not an image')
  with pytest.raises(UsageError, match=r'image_1001\.jpg: cannot be read as an image'):
    article_patches.read_lists(folder)


def test_truncated_image(folder):
  path = folder / 'tra' / 'image_1001.jpg'
  fake_data.truncate(path, 900)
  image = article_patches.read_lists(folder)['train'][1]
  with pytest.raises(UsageError, match=r'image_1001\.jpg: cannot be read as an image'):
    article_patches.read_image(image)


def test_an_image_that_is_too_large_to_decompress(tmp_path):
  (path, *_), *_ = fake_data.write_article(tmp_path)['train']
  content = bytearray(path.read_bytes())
  frame = content.index(b'\xff\xc0')  # start of frame: length, precision, height, width
  content[frame + 5 : frame + 9] = b'\xff\xdc\xff\xdc'
  path.write_bytes(content)
  with pytest.raises(UsageError, match=r'\.jpg: cannot be read as an image'):
    article_patches.read_lists(tmp_path)
