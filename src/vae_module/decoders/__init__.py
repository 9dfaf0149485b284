"""Published names of networks for crystals; everything is in `atomrl`."""
