"""The portal: pages of a signed-in user on the login origin, rendered here and usable without scripts."""
