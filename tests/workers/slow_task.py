"""A task whose module takes long to import."""

import time

time.sleep(30)


def never(item):
    return item
