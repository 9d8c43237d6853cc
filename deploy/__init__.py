"""How Fairlead is built into images and put on machines. Nothing in here is imported at run time."""
