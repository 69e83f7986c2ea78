import hypothesis
from hypothesis import strategies as st
import pytest

from luna_tfds import CONFIGS
from luna_tfds import Builder
from luna_tfds import Luna16PatchesConfig
from luna_tfds import PatchSpec
from luna_tfds import custom_config

CUBE = PatchSpec((48, 48, 48), 1.0, 'cube')


@pytest.mark.parametrize(
  ('name', 'spec', 'ratio', 'image_shape'),
  [
    ('axial_50px', PatchSpec((1, 50, 50)), 5, (50, 50, 1)),
    ('axial_50px_all', PatchSpec((1, 50, 50)), None, (50, 50, 1)),
    ('axial_50mm', PatchSpec((1, 50, 50), 1.0), 5, (50, 50, 1)),
    ('stack_50px', PatchSpec((3, 50, 50), None, 'stack'), 5, (50, 50, 3)),
    ('cube_48mm', CUBE, 5, (48, 48, 48, 1)),
    ('cube_48mm_all', CUBE, None, (48, 48, 48, 1)),
    ('article', PatchSpec((1, 50, 50)), None, (50, 50, 1)),
  ],
)
def test_configs(name, spec, ratio, image_shape):
  config = CONFIGS[name]
  assert config.name == name
  assert config.spec == spec
  assert config.spec.image_shape == image_shape
  assert config.negatives_per_positive == ratio
  assert config.candidate_list == 'V1'
  assert config.subsets is None
  assert config.source == ('article' if name == 'article' else 'scans')


def test_the_first_config_is_the_default():
  assert len(CONFIGS) == 7
  assert next(iter(CONFIGS)) == 'axial_50px'
  assert [config.name for config in Builder.BUILDER_CONFIGS] == list(CONFIGS)


def test_descriptions_of_configs_differ():
  assert len({config.description for config in CONFIGS.values()}) == len(CONFIGS)
  assert '5 negatives a positive of the V1 list' in CONFIGS['axial_50px'].description


@pytest.mark.parametrize(
  ('base', 'changes', 'name'),
  [
    ('axial_50px', {}, 'axial_50px'),
    ('axial_50px', {'patch_shape': (64, 64)}, 'axial_64px'),
    ('axial_50px', {'patch_shape': (16, 12)}, 'axial_16x12px'),
    ('axial_50px', {'patch_shape': (8, 16, 12)}, 'cube_8x16x12px'),
    ('axial_50px', {'patch_shape': (32, 32, 32), 'spacing_mm': 0.5}, 'cube_32at0.5mm'),
    ('stack_50px', {'patch_shape': (5, 64, 64)}, 'stack_5x64px'),
    ('stack_50px', {'patch_shape': (64, 64)}, 'axial_64px'),
    ('stack_50px', {'negatives_per_positive': 10}, 'stack_50px_neg10'),
    ('axial_50mm', {'spacing_mm': 0}, 'axial_50px'),
    ('axial_50px', {'spacing_mm': 1}, 'axial_50mm'),
    ('axial_50px', {'spacing_mm': 0.75}, 'axial_50at0.75mm'),
    ('axial_50px', {'negatives_per_positive': None}, 'axial_50px_all'),
    ('axial_50px', {'negatives_per_positive': 0}, 'axial_50px_neg0'),
    ('axial_50px', {'candidate_list': 'V2'}, 'axial_50px_v2'),
    ('axial_50px_all', {'candidate_list': 'V2'}, 'axial_50px_v2_all'),
    ('axial_50px', {'subsets': (9, 0, 9)}, 'axial_50px_subsets09'),
    ('axial_50px', {'seed': 3}, 'axial_50px_seed3'),
    ('cube_48mm_all', {'seed': 3}, 'cube_48mm_all_seed3'),
  ],
)
def test_custom_configs_and_their_names(base, changes, name):
  assert custom_config(CONFIGS[base], **changes).name == name


def test_custom_config_keeps_other_fields():
  base = custom_config(
    CONFIGS['cube_48mm_all'], seed=3, subsets=(1, 2), candidate_list='V2'
  )
  config = custom_config(base, patch_shape=(8, 8, 8))
  assert config.spec == PatchSpec((8, 8, 8), 1.0, 'cube')
  assert (config.seed, config.subsets, config.candidate_list) == (3, (1, 2), 'V2')
  assert config.negatives_per_positive is None


# Depth, height, width, spacing and layout, as in a spec.
specs = st.one_of(
  st.builds(
    lambda h, w, mm: PatchSpec((1, h, w), mm),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([None, 0.5, 1.0, 2.0]),
  ),
  st.builds(
    PatchSpec,
    st.tuples(*[st.integers(1, 12)] * 3),
    st.sampled_from([None, 0.5, 1.0]),
    st.sampled_from(['stack', 'cube']),
  ),
)
fields = st.fixed_dictionaries(
  {
    'spec': specs,
    'candidate_list': st.sampled_from(['V1', 'V2']),
    'negatives_per_positive': st.sampled_from([None, 0, 1, 5, 10]),
    'subsets': st.sampled_from([None, (0,), (1,), (0, 1)]),
    'seed': st.integers(0, 12),
  }
)


@hypothesis.given(first=fields, second=fields)
@hypothesis.settings(max_examples=300)
def test_different_configs_have_different_names(first, second):
  names = [Luna16PatchesConfig(**chosen).name for chosen in (first, second)]
  assert (names[0] == names[1]) == (first == second)


@pytest.mark.parametrize(
  ('changes', 'problem'),
  [
    ({'candidate_list': 'V3'}, r"one of \['V1', 'V2'\]\. Received: 'V3'"),
    ({'negatives_per_positive': -2}, r'0 or more\. Received: -2'),
    ({'subsets': (1, 10)}, r'in 0\.\.9\. Received: \(1, 10\)'),
    ({'subsets': ()}, r'in 0\.\.9\. Received: \(\)'),
    ({'patch_shape': (50,)}, r'each 1 or more\. Received: 50'),
    ({'patch_shape': (50, 0)}, 'each 1 or more'),
    ({'spacing_mm': -1.0}, 'spacing_mm must be 0.01 to 100 mm'),
    ({'spacing_mm': 1e-300}, 'spacing_mm must be 0.01 to 100 mm'),
    ({'source': 'elsewhere'}, 'unknown source'),
  ],
)
def test_invalid_configs_are_rejected(changes, problem):
  with pytest.raises(ValueError, match=problem):
    custom_config(CONFIGS['axial_50px'], **changes)


def test_fingerprint_fields_decide_the_bytes():
  base = CONFIGS['axial_50px']
  # The selected candidates are in the plan; how they were selected does not matter.
  for same in (CONFIGS['axial_50px_all'], custom_config(base, subsets=(1, 2))):
    assert same.fingerprint_fields() == base.fingerprint_fields()
  for other in (
    CONFIGS['axial_50mm'],
    CONFIGS['article'],
    custom_config(base, seed=1),
    custom_config(base, patch_shape=(50, 49)),
  ):
    assert other.fingerprint_fields() != base.fingerprint_fields()


@pytest.mark.parametrize(
  ('base', 'changes', 'built_in'),
  [
    ('stack_50px', {'candidate_list': 'V1'}, 'stack_50px'),
    ('axial_50px', {'negatives_per_positive': None}, 'axial_50px_all'),
    ('axial_50px', {'spacing_mm': 1.0}, 'axial_50mm'),
    ('cube_48mm_all', {'negatives_per_positive': 5, 'seed': 0}, 'cube_48mm'),
    ('cube_48mm', {'patch_shape': (50, 50), 'spacing_mm': 0}, 'axial_50px'),
  ],
)
def test_custom_config_with_the_fields_of_a_built_in_one_is_that_one(
  base, changes, built_in, tmp_path
):
  config = custom_config(CONFIGS[base], **changes)
  assert config is CONFIGS[built_in]
  # TFDS accepts no other config of this name.
  assert Builder(config=config, data_dir=str(tmp_path)).builder_config is config


def test_the_article_cannot_be_changed():
  with pytest.raises(ValueError, match="the config 'article' takes no options"):
    custom_config(CONFIGS['article'], seed=3)
