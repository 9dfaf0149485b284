"""A folder of YAML files as the published ones for crystals are: groups, a base, and experiments upon it."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

DNG = """\
_target_: src.rl_module.reward.ReinforceReward
normalize_fn: std
eps: 1e-4
reference_dataset: mp-20
components:
  - {_target_: src.rl_module.components.CreativityReward, weight: 1.0, normalize_fn: null}
  - {_target_: src.rl_module.components.EnergyReward, weight: 1.0, normalize_fn: norm}
  - {_target_: src.rl_module.components.StructureDiversityReward, weight: 0.1, normalize_fn: norm}
  - {_target_: src.rl_module.components.CompositionDiversityReward, weight: 1.0, normalize_fn: norm}
"""
"""The reward of the experiments, as the base and an experiment write it out."""

FILES = {
    "train_rl.yaml": """
defaults:
  - data: mp-20
  - rl_module: rl_module
  - callbacks: default
  - logger: wandb
  - scheduler: constant
  - paths: default
  - hydra: default
  - _self_
  - experiment: null
trainer:
  _target_: lightning.pytorch.trainer.Trainer
  default_root_dir: ${paths.output_dir}
  max_steps: 10000
  strategy: ddp
  accelerator: gpu
  devices: 1
  gradient_clip_val: null
  val_check_interval: 5
logger: {wandb: {log_model: false}}
callbacks:
  early_stopping: {monitor: val/reward, patience: 200, mode: max}
task_name: train_rl
ckpt_path: null
seed: 0
""",
    "rl_module/rl_module.yaml": """
_target_: src.rl_module.rl_module.RLModule
ldm_ckpt_path: ${hub:mp_20_ldm_base}
vae_ckpt_path: ${hub:mp_20_vae}
rl_configs:
  {clip_ratio: 0.001, kl_weight: 1.0, entropy_weight: 1e-5, num_group_samples: 1, group_reward_norm: false,
   num_inner_batch: 2}
reward_fn:
"""
    + indent(DNG, "  ")
    + """\
sampling_configs:
  {sampler: ddim, sampling_steps: 50, eta: 1.0, cfg_scale: 2.0, collect_trajectory: true, progress: false}
optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 1e-5, weight_decay: 0.0}
scheduler: ${scheduler}
""",
    "data/mp-20.yaml": """
_target_: src.data.datamodule.DataModule
data_dir: ${paths.data_dir}/mp-20
batch_size: 256
dataset_type: mp_20
target_condition: null
mace_features: false
num_workers: 16
pin_memory: false
""",
    "callbacks/default.yaml": """
defaults: [early_stopping, _self_]
model_checkpoint: {dirpath: '${paths.output_dir}/checkpoints', save_last: true}
""",
    "callbacks/early_stopping.yaml": """
early_stopping: {_target_: lightning.pytorch.callbacks.EarlyStopping, patience: 3}
""",
    "logger/wandb.yaml": """
wandb: {_target_: lightning.pytorch.loggers.wandb.WandbLogger, name: '', project: published, group: '${task_name}'}
""",
    "scheduler/constant.yaml": """
_target_: torch.optim.lr_scheduler.ConstantLR
_partial_: true
factor: 1.0
""",
    "scheduler/warmup_linear.yaml": """
_target_: torch.optim.lr_scheduler.LinearLR
_partial_: true
start_factor: 0.1
""",
    "paths/default.yaml": """
root_dir: .
data_dir: ${paths.root_dir}/data/
output_dir: ${hydra:runtime.output_dir}
""",
    "hydra/default.yaml": """
defaults:
  - override hydra_logging: colorlog
  - override job_logging: colorlog
run: {dir: '${paths.output_dir}'}
""",
    "experiment/mp_20/rl_dng.yaml": """
# @package _global_
defaults:
  - override /data: mp-20
  - override /rl_module: rl_module
  - override /callbacks: default
  - override /logger: wandb
  - override /scheduler: constant
  - override /paths: default
  - override /hydra: default
  - override /hydra/job_logging: colorlog
data: {batch_size: 5}
rl_module:
  ldm_ckpt_path: ${hub:mp_20_ldm_base}
  vae_ckpt_path: ${hub:mp_20_vae}
  rl_configs: {num_group_samples: 64, group_reward_norm: true}
  reward_fn:
"""
    + indent(DNG, "    ")
    + """\
logger: {wandb: {name: rl_dng_grpo}}
""",
    "experiment/mp_20/rl_dng_po.yaml": """
# @package _global_
data: {batch_size: 320}
rl_module:
  ldm_ckpt_path: ckpts/mp_20/ldm/ldm_null_4tfw67aq.ckpt
  rl_configs: {num_group_samples: 1, group_reward_norm: False}
  reward_fn: {reward_type: dng}
""",
    "experiment/alex_mp_20_bandgap/rl_bandgap.yaml": """
# @package _global_
data:
  _target_: src.data.datamodule.DataModule
  data_dir: ${paths.data_dir}/alex_mp_20_bandgap
  batch_size: 5
  dataset_type: alex_mp_20_bandgap
  target_condition: dft_band_gap
  num_workers: 16
trainer: {max_steps: 1000}
rl_module:
  ldm_ckpt_path: ${hub:alex_mp_20_ldm_rl}
  vae_ckpt_path: ${hub:alex_mp_20_vae}
  rl_configs: {clip_ratio: 0.0001, kl_weight: 1.0, num_group_samples: 64, group_reward_norm: true}
  reward_fn:
    _target_: src.rl_module.reward.ReinforceReward
    normalize_fn: std
    eps: 1e-4
    reference_dataset: alex-mp-20
    components:
      - _target_: src.rl_module.components.PredictorReward
        weight: 1.0
        normalize_fn: norm
        predictor:
          _target_: src.vae_module.predictor_module.PredictorModule.load_from_checkpoint
          checkpoint_path: ckpts/alex_mp_20_bandgap/predictor/predictor_dft_band_gap_e8mhs4yg.ckpt
          map_location: cpu
        target_name: dft_band_gap
        target_value: 3.0
        clip_min: 0.0
      - {_target_: src.rl_module.components.CompositionDiversityReward, weight: 0.5, normalize_fn: norm}
callbacks:
  early_stopping: {monitor: val/reward, patience: 10, mode: max}
logger: {wandb: {name: rl_bandgap}}
""",
    "custom_reward/density.yaml": """
# @package _global_
data: {data_dir: '${paths.data_dir}/mp-20', batch_size: 4}
trainer: {max_steps: 5}
rl_module:
  ldm_ckpt_path: ${hub:mp_20_ldm_base}
  rl_configs: {num_group_samples: 8, group_reward_norm: true}
  reward_fn:
    normalize_fn: std
    components:
      - {_target_: custom_reward.density.Density}
""",
}
"""{path: text}."""


def write(folder: Path, *prefixes: str) -> Path:
    """The files whose path begins with one of the prefixes; all if none is given."""
    for name, text in FILES.items():
        if name.startswith(prefixes or ("",)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text.lstrip("\n"))
    return folder
