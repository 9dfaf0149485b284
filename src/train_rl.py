"""The documented entry point of crystal post-training; the same as `atomrl train`."""

from atomrl.cli import train_main

if __name__ == "__main__":
    train_main()
