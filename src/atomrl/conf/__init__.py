"""Experiments: one self-contained YAML each; `atomrl train --config-name NAME`."""
