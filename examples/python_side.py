"""Sample ten molecules from the shipped backbone, score them by GFN2-xTB, train for five iterations, score again."""

import sys

from atomrl.checkpoints.backbone import load_backbone
from atomrl.config import load_config
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.evaluation.evaluate import SamplePlan, sample
from atomrl.training.run import train
from atomrl.util.device import choose_device

config = load_config("demo", ["dataloader.epoches=5", *sys.argv[1:]])  # add any key=value of conf/demo.yaml
device, plan = choose_device(config.device), SamplePlan(count=10, time_step=config.model.time_step, seed=0)
with MoleculePanel() as panel:  # xTB and RDKit in workers; a molecule that cannot be evaluated has infinite force
    before = panel.judge(sample(load_backbone("edm_qm9_small"), plan, device)).metrics.samples
    run = train(config, "python_side")  # the run directory, with checkpoints and metrics.jsonl
    after = panel.judge(sample(load_backbone(f"{run}/checkpoint_latest.pth"), plan, device)).metrics.samples
for label, found in (("before", before), ("after", after)):
    print(label, *zip(found.smiles, found.rms_forces.round(2).tolist(), strict=True), sep="\n  ")
