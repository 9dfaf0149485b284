"""Commands that say what there is: `atomrl list`, `atomrl keys`, `atomrl doctor`."""
