"""The start of a workspace: accounts of the container, take-over of the home, init scripts."""
