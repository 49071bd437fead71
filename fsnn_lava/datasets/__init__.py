"""One loader a file: each reads a dataset's files below one folder and returns a `Dataset`. Nothing is downloaded."""
