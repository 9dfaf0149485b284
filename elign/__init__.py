"""Published names of the post-training of molecules; everything is in `atomrl` (docs/molecules.md, Published names)."""
