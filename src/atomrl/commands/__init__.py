"""What each command of `atomrl` does; `cli.py` starts them."""
