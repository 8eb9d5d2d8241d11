"""Short files with the keys of PASSL v1.1's, for small networks on small images. DATA and OUT stand for folders."""

MERGES = ("c a", "ca t</w>", "d o", "do g</w>", "n u", "nu m", "t h", "th e</w>")
MERGES_VOCABULARY = 514 + len(MERGES)       # bytes, bytes that end a word, merges, two marks

TOP = """
epochs: 4
output_dir: OUT
seed: 0
device: gpu
"""
BOTTOM = """
log_config:
    name: LogHook
    interval: 50
"""


def _normalise(indent: int) -> str:
    lines = ["- name: Transpose", "- name: NormalizeImage", "  scale: 1.0/255.0", "  mean: [0.485, 0.456, 0.406]",
             "  std: [0.229, 0.224, 0.225]"]
    return "\n".join(" " * indent + line for line in lines) + "\n"


def _train(dataset: str, drop_last: str = "True") -> str:
    return f"""
dataloader:
  train:
    loader:
      num_workers: 1
      use_shared_memory: True
    sampler:
      batch_size: 4
      shuffle: true
      drop_last: {drop_last}
    dataset:
{dataset}"""


def _two(crop: str, view: str) -> str:
    return f"""      name: ImageNet
      dataroot: DATA/train
      return_label: False
      return_two_sample: True
      transforms:
        - name: RandomResizedCrop
          size: 32
{crop}
      view_trans1:
{view}      view_trans2:
{view}"""


V1 = """        - name: RandomGrayscale
          p: 0.2
        - name: ColorJitter
          brightness: 0.4
          contrast: 0.4
          saturation: 0.4
          hue: 0.4
        - name: RandomHorizontalFlip
""" + _normalise(8)
V2 = """        - name: RandomApply
          transforms:
          - name: ColorJitter
            brightness: 0.4
            contrast: 0.4
            saturation: 0.4
            hue: 0.1
          p: 0.8
        - name: RandomGrayscale
          p: 0.2
        - name: RandomApply
          transforms:
          - name: GaussianBlur
            sigma: [0.1, 2.0]
          p: 0.5
        - name: RandomHorizontalFlip
""" + _normalise(8)
BYOL_VIEW = """        - name: ByolRandomHorizontalFlip
        - name: RandomApply
          transforms:
          - name: ByolColorJitter
            brightness: 0.4
            contrast: 0.4
            saturation: 0.2
            hue: 0.1
          p: 0.8
        - name: ByolRandomGrayscale
          p: 0.2
        - name: Clip
"""
VAL = """
  val:
    loader:
      num_workers: 1
      use_shared_memory: True
    sampler:
      batch_size: 8
      shuffle: false
      drop_last: false
    dataset:
      name: ImageNet
      dataroot: DATA/val
      return_label: True
      transforms:
        - name: Resize
          size: 36
        - name: CenterCrop
          size: 32
"""
BYOL_VAL = VAL + "        - name: ByolNormalize\n        - name: Clip\n"
MOCO = """
model:
  name: MoCo
  K: 64
  m: 0.9
  backbone:
    name: ResNet
    depth: 18
  neck:
    name: {neck}
    in_channels: 512
{hidden}    out_channels: 8
    with_avg_pool: True
  head:
    name: ContrastiveHead
    temperature: {temperature}
"""
MOMENTUM = "\noptimizer:\n  name: Momentum\n  weight_decay: 0.0001\n"
CROP = "          scale: [0.2, 1.]"

MOCO_V1 = TOP + MOCO.format(neck="LinearNeck", hidden="", temperature=0.07) + _train(_two(CROP, V1)) + """
lr_scheduler:
  name: MultiStepDecay
  learning_rate: 0.03
  milestones: [2, 3]
""" + MOMENTUM + BOTTOM

MOCO_V2 = TOP + MOCO.format(neck="NonLinearNeckV1", hidden="    hid_channels: 16\n", temperature=0.2) + _train(
    _two(CROP, V2)) + """
lr_scheduler:
  name: CosineAnnealingDecay
  learning_rate: 0.015
  T_max: 4
""" + MOMENTUM + BOTTOM

SIMCLR = """
epochs: 4
use_simclr_iters: True
global_batch_size: 4096
output_dir: OUT

model:
  name: SimCLR
  backbone:
    name: ResNetsimclr
    depth: 18
  neck:
    name: NonLinearNeckfc3
    in_channels: 512
    hid_channels: 16
    out_channels: 8
    with_avg_pool: False
  head:
    name: SimCLRContrastiveHead
    temperature: 0.1
""" + _train(_two("          scale: [0.1, 1.]\n          interpolation: bicubic", V2)).replace(
    "    loader:\n      num_workers: 1\n      use_shared_memory: True\n", "    num_workers: 1\n") + (
        VAL + _normalise(8)) + """
lr_scheduler:
  name: simclrCosineWarmup
  learning_rate_scaling: sqrt
  total_images: 1281167
  warmup_epochs: 1
  start_lr: 0
  end_lr: 1.0
  T_max: 200

optimizer:
  name: LarsMomentumOptimizer
  momentum: 0.9
  lars_weight_decay: 0.0001
  exclude_from_weight_decay: ["scale","offset",".bias"]
""" + BOTTOM

BYOL = TOP + """
use_byol_iters: True
total_images: 1280
global_batch_size: 64

model:
  name: BYOL
  backbone:
    name: ResNet
    depth: 18
    with_pool: True
    zero_init_residual: False
  neck:
    name: NonLinearNeckV2
    in_channels: 512
    hid_channels: 16
    out_channels: 8
    with_avg_pool: False
  predictor:
    name: NonLinearNeckV2
    in_channels: 8
    hid_channels: 16
    out_channels: 8
    with_avg_pool: False
  head:
    name: L2Head
  target_decay_method: cosine
  target_decay_rate: 0.99
  align_init_network: False
  use_synch_bn: True
  num_classes: 1000
  embedding_dim: 512
""" + _train(_two("          scale: [0.08, 1.]\n          interpolation: bicubic\n        - name: ByolNormalize\n"
                  "        - name: Clip", BYOL_VIEW).replace("return_label: False", "return_label: True")) + """
lr_scheduler:
  name: CosineWarmup
  learning_rate: 0.8
  T_max: 80
  warmup_steps: 20
  start_lr: 0.0001
  end_lr: 0.8

optimizer:
  name: LarsMomentumOptimizer
  momentum: 0.9
  lars_weight_decay: 1.0e-6
  epsilon: 1e-9
  exclude_from_weight_decay: [".b_0","batch_norm"]
""" + BOTTOM

SIMSIAM = TOP + """
use_simclr_iters: True
global_batch_size: 32

model:
  name: SimSiam
  backbone:
    name: ResNet
    depth: 18
    with_pool: True
    num_classes: 32
    zero_init_residual: True
  predictor:
    name: NonLinearNeckV2
    in_channels: 32
    hid_channels: 8
    out_channels: 32
    with_bias: False
    with_avg_pool: False
  head:
    name: SimSiamContrastiveHead
""" + _train(_two(CROP, V2)) + """
lr_scheduler:
  name: Cosinesimclr
  learning_rate: 0.1
  T_max: 4
""" + MOMENTUM + """
optimizer_config:
  name: SimsiamOptimizerHook

lr_config:
  name: LRSchedulerHook
  unit: epoch
""" + BOTTOM

MIXER = TOP + """
model:
    name: MlpMixerWrapper
    architecture:
        name: MlpMixer
        img_size: 32
        embed_dim: 32
        patch_size: 8
        num_blocks: 2
    head:
        name: MlpMixerClsHead
        num_classes: 2
        in_channels: 32
""" + _train("""      name: ImageNet
      dataroot: DATA/train/
      return_label: True
      transforms:
        - name: ToRGB
        - name: RandomResizedCrop
          size: 32
          scale: [0.75, 1.]
          ratio: [1., 1.]
          interpolation: 'bicubic'
""" + _normalise(8)) + """
lr_scheduler:
  name: CosineWarmup
  learning_rate: 0.003
  T_max: 80073
  warmup_steps: 10000
  start_lr: 0.00003
  end_lr: 0.003

optimizer:
  name: AdamW
  beta1: 0.9
  beta2: 0.999
  weight_decay: 0.3
  grad_clip:
    name: global_norm
    value: 1.0
""" + BOTTOM

MOCO_CLAS = TOP + """
image_shape: [3, 32, 32]
save_inference_dir: ./inference

model:
  name: Classification
  backbone:
    name: ResNet
    depth: 18
    frozen_stages: 4
  head:
    name: ClasHead
    with_avg_pool: true
    in_channels: 512
""" + _train("""      name: ImageNet
      dataroot: DATA/train
      return_label: True
      transforms:
        - name: RandomResizedCrop
          size: 32
        - name: RandomHorizontalFlip
""" + _normalise(8)) + VAL + _normalise(8) + """
lr_scheduler:
  name: MultiStepDecay
  learning_rate: 30.0
  milestones: [2, 3]

optimizer:
  name: Momentum
  weight_decay: 0.0

custom_config:
  - name: EvaluateHook
""" + BOTTOM

BYOL_CLAS = TOP + """
model:
  name: ByolClassification
  backbone:
    name: ResNet
    depth: 18
    with_pool: true
    frozen_stages: 4
  head:
    name: ClasHead
    with_avg_pool: false
    in_channels: 512
    num_classes: 2
""" + _train("""      name: ImageNet
      dataroot: DATA/train
      return_label: True
      transforms:
        - name: ByolRandomCrop
        - name: RandomHorizontalFlip
        - name: Resize
          size: [32,32]
          interpolation: bicubic
        - name: ByolNormalize
        - name: Clip
""", drop_last="False") + BYOL_VAL + """
lr_scheduler:
  name: ByolLRScheduler
  total_image: 1281167
  total_batch: 1024
  total_steps: 4
  warmup_steps: 0
  start_lr: 0.0001
  end_lr: 1.6

optimizer:
  name: Momentum
  use_nesterov: true

custom_config:
  - name: EvaluateHook
""" + BOTTOM

CLIP = TOP + f"""
model:
  name: CLIPWrapper
  architecture:
    name: CLIP
    embed_dim: 16
    image_resolution: 32
    vision_layers: 1
    vision_width: 64
    vision_patch_size: 16
    context_length: 12
    vocab_size: {MERGES_VOCABULARY}
    transformer_width: 32
    transformer_heads: 2
    transformer_layers: 1
    qkv_bias: True
    pre_norm: True
    proj: True
    patch_bias: False
  head:
    name: CLIPHead
""" + _train("""      name: TextImageDataset
      dataroot: DATA/train
      transforms:
        - name: ToRGB
        - name: RandomResizedCrop
          size: 32
          scale: [0.75, 1.]
          ratio: [1., 1.]
        - name: ToTensor
        - name: Normalize
          mean: [0.485, 0.456, 0.406]
          std: [0.229, 0.224, 0.225]
      shuffle: False
""") + """
lr_scheduler:
  name: LinearWarmup
  learning_rate:
    name: CosineAnnealingDecay
    learning_rate: 0.0001
    T_max: 4
    eta_min: 1e-6
  warmup_steps: 2
  start_lr: 0
  end_lr: 0.0001

optimizer:
  name: AdamW
  beta1: 0.9
  beta2: 0.98
  epsilon: 1e-8
  weight_decay: 0.0005
""" + BOTTOM

FILES = {"moco_v1": MOCO_V1, "moco_v2": MOCO_V2, "simclr": SIMCLR, "byol": BYOL, "simsiam": SIMSIAM, "mixer": MIXER,
         "moco_clas": MOCO_CLAS, "byol_clas": BYOL_CLAS, "clip": CLIP}
