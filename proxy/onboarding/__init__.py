"""Onboarding of new users: device flow, providers, confirm page, and what providers say of users later."""
